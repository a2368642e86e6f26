from proctor_common.bus import Bus, BusOptions
from proctor_common.metrics import make_registry, observe_bus, render


def test_the_state_of_the_bus_is_shown_as_it_is_when_asked() -> None:
    registry = make_registry()
    bus = Bus(BusOptions(("nats://127.0.0.1:1",), "x"))
    observe_bus(registry, bus)
    bus.handler_failures = 3
    text = render(registry).decode()
    assert "proctor_bus_connected 0.0" in text
    assert "proctor_bus_handler_failures 3.0" in text
    assert "process_resident_memory_bytes" in text
