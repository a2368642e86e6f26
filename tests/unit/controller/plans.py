"""A plan that uses all of the language."""

EVERYTHING = """\
testplan_version: "2026-12-01"
name: vnf-smoke
description: Build, deploy a VNF on pooled volumes, run the cases
parameters:
  image:   {type: string, default: vnf-1.4, constraints: [{allowed_pattern: "^[a-z0-9.-]+$", description: a name}]}
  sites:   {type: list, default: [a, b]}
  token:   {type: string, hidden: true}
hosts:
  builder: {group: lab-a, plugin: build_server}
  dut:     {group: lab-a, labels: {os: debian}, count: 2, exclusive: true}
volumes:
  data: {type: igw, count: 2, pool: prefer, on_end: delete}
concurrency: {group: "vnf-${{ params.image }}", max: 1, when_full: queue}
timeouts: {run: 2h, queue: 24h, cleanup: 5m}
defaults: {timeout: 30m, grace: 10s}
secrets: {KEY: lab-key}
steps:
  build:
    uses: build_server.run_shell
    runs_on: builder
    with: {command: make, args: "IMG=${{ params.image }}"}
    outputs: {artifact: "${{ result.stdout_last_line }}"}
    env: {TOKEN: "${{ params.token }}", KEY: "${{ secrets.KEY }}"}
  deploy:
    uses: deploy.upload
    runs_on: each dut
    with: {source: "${{ steps.build.outputs.artifact }}"}
    retry: {attempts: 3, delay: 5s, backoff: 2, max_delay: 60s, on: [error, timed_out, agent_lost]}
    idempotent: true
    rollback: {uses: deploy.remove, with: {target: "${{ self.outputs.path }}"}}
  smoke:
    uses: testcase.run
    runs_on: dut[0]
    depends_on: {deploy: succeeded}
    if: params.image != "none"
    matrix: {case: [vping, tempest], site: "${{ params.sites }}", exclude: [{case: tempest, site: b}]}
    strategy: {max_parallel: 4, fail_fast: false}
    env: {LANG: C.UTF-8}
    failed_when: "!(result.exit_code in [0, 3])"
    until: "result.stdout_last_line == 'ready'"
    expect: {error: {kind: qmp_error, class: GenericError, contains: "no medium"}}
    record: {project: functest, case: "${{ matrix.case }}", version: "${{ params.image }}", scenario: os-nosdn}
    artefacts: ["*.xml"]
  approve: {gate: {roles: [admin], timeout: 12h}, depends_on: [smoke]}
  soak:    {plan: soak-plan, with: {image: "${{ params.image }}"}, depends_on: [approve]}
on_failure: [{uses: linux_system.run_shell, runs_on: each dut, with: {command: collect-logs}}]
always:     [{uses: linux_system.run_shell, runs_on: each dut, with: {command: cleanup}}]
rollback: on_failure
hold_on_failure: {hosts: [dut], for: 2h}
outputs: {artifact: "${{ steps.build.outputs.artifact }}"}
webhook: {url: "https://ci.example/done", secret: "${{ secrets.KEY }}"}
"""
