testinfra_hosts = ["reachable"]


def test_ping(host):
    assert host.run("true").rc == 0
