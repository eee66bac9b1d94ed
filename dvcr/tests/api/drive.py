"""Drives a server through the client that was generated from openapi/dvcr.json: a list in pages, one thing by its name, long work
that is begun and asked about, something that is removed, and problems."""

import datetime
import sys
import time
import urllib.request

from dvcr_api import Client
from dvcr_api.api.gc import get_gc, get_gc_run, list_gc_runs, start_gc_run
from dvcr_api.api.repositories import (
    get_manifest,
    get_repository,
    list_manifests,
    list_repositories,
    list_tags,
)
from dvcr_api.api.server import get_server, get_settings
from dvcr_api.api.uploads import cancel_upload, list_uploads
from dvcr_api.api.usage import get_blob, get_stats, list_blobs, list_usage
from dvcr_api.models import ChildRole, GcRunRequest, GcRunState, Problem

url = sys.argv[1]
client = Client(base_url=url)


def equal(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


def everything(ask, **parameters):
    """All items of a list, one to a page."""
    items, after = [], None
    while True:
        page = ask.sync(client=client, limit=1, **parameters, **({"after": after} if after else {}))
        assert not isinstance(page, Problem), page
        assert len(page.items) <= 1
        items += page.items
        after = page.next_
        if not after:
            return items


# Lists and single things.
equal([r.name for r in everything(list_repositories)], ["vi/a", "vi/b", "vi/c/d"])
equal([r.name for r in everything(list_repositories, prefix="vi/c")], ["vi/c/d"])
repository = get_repository.sync(client=client, repository="vi/c/d")
equal((repository.tags, repository.manifests, repository.blobs), (1, 1, 2))
age = datetime.datetime.now(datetime.timezone.utc) - repository.created_at
assert datetime.timedelta(0) <= age < datetime.timedelta(minutes=10), age
(tag,) = everything(list_tags, repository="vi/a")
equal((tag.name, tag.manifest.tags), ("v1", ["v1"]))
equal(tag.manifest.content_bytes, (1 << 20) + 300)
equal([m.digest for m in everything(list_manifests, repository="vi/a")], [tag.digest])
manifest = get_manifest.sync("v1", client=client, repository="vi/a")
equal(manifest.manifest.digest, tag.digest)
equal([c.role for c in manifest.children], [ChildRole.CONFIG, ChildRole.LAYER])
layer = get_blob.sync(manifest.children[1].digest, client=client, repository="vi/a")
equal((layer.logical_bytes, layer.shared_bytes, layer.repositories), (1 << 20, 0, ["vi/a"]))
equal(len(everything(list_blobs)), 6)
stats = get_stats.sync(client=client)
equal((stats.blobs, stats.estimated), (6, False))
assert get_stats.sync(client=client, repository="vi/a").logical_bytes < stats.logical_bytes / 2
hour = datetime.timedelta(hours=1)
(sample,) = everything(list_usage, from_=repository.created_at - hour)
assert sample.at < datetime.datetime.now(datetime.timezone.utc) + hour
equal(everything(list_usage, from_=sample.at + hour), [])
server = get_server.sync(client=client)
assert server.storage.free_bytes < server.storage.total_bytes
equal(get_settings.sync(client=client).settings["gc"]["grace"], "1h")

# Long work: begun, asked about, remembered.
begun = start_gc_run.sync_detailed(client=client, body=GcRunRequest(grace_seconds=0))
equal(begun.status_code, 202)
run = begun.parsed
equal(begun.headers["location"], f"/api/v1/gc/runs/{run.id}")
deadline = time.monotonic() + 60
while run.state not in (GcRunState.DONE, GcRunState.FAILED, GcRunState.REFUSED):
    assert time.monotonic() < deadline, run
    time.sleep(0.05)
    run = get_gc_run.sync(run.id, client=client)
equal((run.state, run.grace_seconds), (GcRunState.DONE, 0))
assert run.finished_at >= run.started_at
equal(everything(list_gc_runs)[0], run)
equal(get_gc.sync(client=client).last, run)

# Something that is removed.
start = urllib.request.Request(f"{url}/v2/vi/a/blobs/uploads/", method="POST")
with urllib.request.urlopen(start) as answer:
    session = answer.headers["Location"].rsplit("/", 1)[1]
(upload,) = everything(list_uploads)
equal((upload.id, upload.repository, upload.received_bytes), (session, "vi/a", 0))
equal(cancel_upload.sync_detailed(session, client=client).status_code, 204)
equal(everything(list_uploads), [])

# Problems.
problem = get_repository.sync(client=client, repository="vi/none")
assert isinstance(problem, Problem), problem
equal((problem.status, problem.code), (404, "NAME_UNKNOWN"))
problem = list_repositories.sync(client=client, after="no cursor")
assert isinstance(problem, Problem) and problem.status == 400, problem
problem = cancel_upload.sync(session, client=client)
equal((problem.status, problem.code), (404, "BLOB_UPLOAD_UNKNOWN"))
print("done")
