"""References that lead to where only this host gets: nothing there is ever asked, whatever way they lead there."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import dropoff
from support.daemon import DaemonProcess
from support.nameserver import NameServer
from support.network import Host
from support.servers.fixtures import missing
from support.servers.process import UnavailableError
from support.web import Page, Web

# In a namespace of the test's own, where no packet leaves.
PUBLIC, PRIVATE, LOOPBACK = "9.9.9.9", "10.11.12.13", "127.0.0.1"
PORT = 8080
_ASKS_OURS = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'


class Site:
    """A daemon in a namespace with servers at a public and at private addresses, and a name for a private one."""

    def __init__(self, root: Path, stack: ExitStack) -> None:
        host = Host()
        stack.callback(host.close)
        for address in (PUBLIC, PRIVATE, "169.254.169.254"):
            host.run("ip", "address", "add", f"{address}/32", "dev", "lo")
        with host.inside():
            names = stack.enter_context(NameServer(LOOPBACK, PRIVATE))
            self.public = stack.enter_context(Web(PUBLIC, PORT))
            self.secret = [stack.enter_context(Web(address, PORT)) for address in (PRIVATE, LOOPBACK)]
            self.secret.append(stack.enter_context(Web("169.254.169.254", 80)))
        names.knows = True
        asks = root / "resolv.conf"
        asks.write_text(f"nameserver {LOOPBACK}\n")
        self.prefix = (*host.prefix, "unshare", "--mount", "sh", "-c", _ASKS_OURS, str(asks))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """Return that namespace, if this machine has any."""
    with ExitStack() as stack:
        try:
            yield Site(tmp_path, stack)
        except UnavailableError as error:
            missing("a network of its own", str(error))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[DaemonProcess]:
    """Return a daemon that is not started."""
    found = DaemonProcess(tmp_path)
    yield found
    found.end()


def test_private_addresses_are_not_asked(site: Site, daemon: DaemonProcess) -> None:
    """Named as such, by another spelling, by a name or by a redirect: bare, with the reason; a public one is seen."""
    secrets = [f"http://{PRIVATE}:{PORT}/s", f"http://{LOOPBACK}:{PORT}/s", "http://169.254.169.254/s"]
    spelt = [f"http://private.example:{PORT}/s", f"http://localhost:{PORT}/s", f"http://2130706433:{PORT}/s",
             f"http://[::ffff:127.0.0.1]:{PORT}/s", f"http://0x7f.1:{PORT}/s"]  # fmt: skip
    site.public.pages["/seen"] = Page(b"1", {"ETag": '"seen"'})
    redirects = []
    for number, secret in enumerate([*secrets, *spelt]):
        site.public.pages[f"/to/{number}"] = Page(status=307, headers={"Location": secret})
        redirects.append(f"{site.public.url}/to/{number}")
    for web in site.secret:
        web.pages["/s"] = Page(b"12345", {"ETag": '"secret"'})
    daemon.start(site.prefix)
    artifact = dropoff.Artifact("cats", "dataset", settings=daemon.settings)
    uris = [f"{site.public.url}/seen", *secrets, *spelt, *redirects]
    for number, uri in enumerate(uris):
        artifact.add_reference(uri, f"{number:02}")
    daemon.run().log_artifact(artifact).wait(60)
    (path,) = daemon.store.glob("project/artifacts/cats/versions/*.json")
    manifest = json.loads(path.read_bytes())
    seen, *bare = manifest["references"]
    assert (seen["size"], seen["etag"]) == (1, "seen")
    assert bare == [{"path": f"{number:02}", "uri": uri} for number, uri in enumerate(uris)][1:]
    assert [web.asked for web in site.secret] == [[], [], []]
    assert len(site.public.asked) == 1 + len(redirects)
    assert len(manifest["skipped"]) == len(bare)
    # A number is no address to yarl, though it is one to the C library.
    assert all("2130706433" in line for line in manifest["skipped"] if "is not public" not in line)
