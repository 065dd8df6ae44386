from warren.telemetry.meters import Meters


def test_numbers_are_rendered_for_prometheus() -> None:
    meters = Meters()
    meters.creates.labels("crun", "ok").inc()
    meters.create_seconds.labels("crun").observe(0.04)
    text = meters.render().decode()
    assert 'warren_creates_total{code="ok",runtime="crun"} 1.0' in text
    assert 'warren_create_seconds_bucket{le="0.05",runtime="crun"} 1.0' in text


def test_two_sets_in_one_process_are_apart() -> None:
    first, second = Meters(), Meters()
    first.relays_open.inc()
    assert "warren_gateway_relays_open 0.0" in second.render().decode()
