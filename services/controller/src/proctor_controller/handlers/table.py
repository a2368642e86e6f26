"""Every operation of the api with its handler."""

from collections.abc import Mapping

from proctor_common.messages.calls import agents as of_agents
from proctor_common.messages.calls import audit as of_audit
from proctor_common.messages.calls import plans as of_plans
from proctor_common.messages.calls import pools as of_pools
from proctor_common.messages.calls import runs as of_runs
from proctor_controller.handlers import audit, pools, schedules, stored_plans
from proctor_controller.handlers.agents import groups, registry
from proctor_controller.handlers.calls import Handler, on
from proctor_controller.handlers.runs import artefacts, cases, plans, records, verbs, views

_ALL = (
    on(of_runs.SUBMIT_CASE, cases.submit_case),
    on(of_runs.SUBMIT_RUN, plans.submit_run),
    on(of_runs.GET_RUN, views.get_run),
    on(of_runs.LIST_RUNS, views.get_runs),
    on(of_runs.GET_DOCUMENT, views.get_document),
    on(of_runs.LIST_STEPS, views.get_steps),
    on(of_runs.LIST_EVENTS, views.get_events),
    on(of_runs.GET_LOG_INDEX, views.get_log_index),
    on(of_runs.LIST_ARTEFACTS, artefacts.get_artefacts),
    on(of_runs.READ_ARTEFACT, artefacts.read_artefact),
    on(of_runs.CANCEL_RUN, verbs.cancel_run),
    on(of_runs.PAUSE_RUN, verbs.pause_run),
    on(of_runs.RESUME_RUN, verbs.resume_run),
    on(of_runs.RERUN, verbs.rerun),
    on(of_runs.APPROVE_STEP, verbs.approve),
    on(of_runs.REJECT_STEP, verbs.reject),
    on(of_runs.LIST_PENDING_RECORDS, records.get_pending),
    on(of_runs.CONFIRM_RECORDS, records.confirm),
    on(of_plans.VALIDATE_PLAN, plans.validate_plan),
    on(of_plans.SHOW_PLAN_SCHEMA, plans.show_schema),
    on(of_plans.PUT_PLAN, stored_plans.put_plan),
    on(of_plans.GET_PLAN, stored_plans.get_plan),
    on(of_plans.LIST_PLANS, stored_plans.list_plans),
    on(of_plans.DELETE_PLAN, stored_plans.delete_plan),
    on(of_plans.LIST_SCHEDULES, schedules.list_schedules),
    on(of_plans.GET_SCHEDULE, schedules.get_schedule),
    on(of_plans.PUT_SCHEDULE, schedules.put_schedule),
    on(of_plans.DELETE_SCHEDULE, schedules.delete_schedule),
    on(of_agents.LIST_AGENTS, registry.list_agents),
    on(of_agents.GET_AGENT, registry.get_agent),
    on(of_agents.DRAIN_AGENT, registry.drain_agent),
    on(of_agents.UNDRAIN_AGENT, registry.undrain_agent),
    on(of_agents.RELEASE_AGENT, registry.release_agent),
    on(of_agents.REMOVE_AGENT, registry.remove_agent),
    on(of_agents.ENROL_AGENT, registry.enrol_agent),
    on(of_agents.JOIN_AGENT, registry.join_agent),
    on(of_agents.LIST_GROUPS, groups.list_groups),
    on(of_agents.GET_GROUP, groups.get_group),
    on(of_agents.PUT_GROUP, groups.put_group),
    on(of_agents.DELETE_GROUP, groups.delete_group),
    on(of_agents.BIND_AGENT, groups.bind_agent),
    on(of_agents.UNBIND_AGENT, groups.unbind_agent),
    on(of_pools.LIST_POOLS, pools.list_pools),
    on(of_pools.PUT_POOL, pools.put_pool),
    on(of_pools.REPLENISH_POOLS, pools.replenish),
    on(of_pools.SYNC_POOLS, pools.sync),
    on(of_pools.RELOAD_POOLS, pools.reload),
    on(of_pools.LIST_VOLUMES, pools.list_volumes),
    on(of_pools.DELETE_VOLUME, pools.delete_volume),
    on(of_pools.CREATE_VNFP, pools.create_vnfp),
    on(of_pools.GET_VNFP, pools.get_vnfp),
    on(of_pools.LIST_VNFPS, pools.list_vnfps),
    on(of_pools.DELETE_VNFP, pools.delete_vnfp),
    on(of_audit.ADD_AUDIT, audit.add_audit),
    on(of_audit.LIST_AUDIT, audit.list_audit),
    on(of_audit.PING, audit.ping),
)
HANDLERS: Mapping[str, Handler] = {each.operation.name: each for each in _ALL}
