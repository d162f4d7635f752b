"""A day of a program that speaks to the API through a generated client (ariadne-codegen's).

What it is to do comes as one line of JSON on standard input: {"url", "token", "stranger", "vms": [ids], "guest"}.
Each line on standard output is something it learned: {"socket", "heard", "data"}. Whatever the client cannot
read (a field that is null against the schema, an unknown enum, a time that is none) ends it with a traceback.
"""

import asyncio
import json
import sys
from datetime import datetime
from uuid import UUID, uuid4

from infinibay_client import (
    Client,
    CommandInput,
    CreateVmInput,
    OperationKind,
    OperationStatus,
    SafeActionName,
    SafeCommandInput,
    UnsafeCommandInput,
    VmFilter,
    VmSort,
)
from infinibay_client.exceptions import GraphQLClientGraphQLMultiError, GraphQLClientHttpError


def say(heard, data):
    print(json.dumps({"socket": "generated", "heard": heard, "data": data}, default=str), flush=True)


def client(wanted, token):
    ws = wanted["url"].replace("http", "ws", 1)
    return Client(
        url=f"{wanted['url']}/graphql",
        headers={"Authorization": f"Bearer {token}"},
        ws_url=f"{ws}/graphql/ws",
        ws_connection_init_payload={"authorization": f"Bearer {token}"},
    )


async def refused(what, asked):
    """The code of something that has to be refused."""
    try:
        await asked
    except GraphQLClientGraphQLMultiError as refusal:
        say("refused", {"what": what, "codes": [error.extensions["code"] for error in refusal.errors]})
    except GraphQLClientHttpError as refusal:
        code = refusal.response.json()["errors"][0]["extensions"]["code"]
        say("refused", {"what": what, "status": refusal.status_code, "codes": [code]})
    else:
        raise AssertionError(f"{what} was not refused")


async def create(admin, name, vm):
    """Asks for a VM, and follows its operation to the end."""
    # Its image is read for the first time.
    while True:
        try:
            asked = CreateVmInput(
                id=vm, name=name, image="blank", vcpus=1, memoryMib=128, pool="default-pool", network="none"
            )
            made = (await admin.create_vm(asked)).create_vm
            break
        except GraphQLClientGraphQLMultiError as refusal:
            if refusal.errors[0].extensions["code"] != "IMAGE_BEING_CHECKED":
                raise
            await asyncio.sleep(0.1)
    assert isinstance(made.vm.id, UUID) and isinstance(made.vm.created_at, datetime), made.vm
    assert made.vm.memory_mib == 128 and made.vm.latest_metrics is None, made.vm
    seen = []
    async for told in admin.operation_progress(made.operation.id):
        seen.append(told.operation_progress)
    assert seen[-1].status == OperationStatus.SUCCEEDED and seen[-1].finished_at > made.vm.created_at, seen
    say("created", {"name": made.vm.name, "vm": made.vm.id, "stages": len(seen)})


async def pages(asked):
    """All nodes of a connection, page by page."""
    nodes, after = [], None
    while True:
        page = await asked(after)
        nodes.append(page.nodes)
        if not page.page_info.has_next_page:
            return nodes
        after = page.page_info.end_cursor


async def watch(admin, vm):
    """Stops a VM while its events are watched; how it was, and what it was told until it was off."""
    events, stopping = [], None
    told = admin.vm_events(vm)
    async for event in told:
        events.append(event.vm_events)
        if stopping is None:
            stopping = (await admin.stop_vm(vm, True)).stop_vm.operation
            assert stopping.vm_id == vm and stopping.kind == OperationKind.STOP, stopping
        elif event.vm_events.payload.get("phase") == "STOPPED":
            break
    await told.aclose()
    assert all(event.vm_id == vm and isinstance(event.at, datetime) for event in events), events
    say("events", {"snapshot": events[0].payload, "types": [event.type_ for event in events]})
    async for told in admin.operation_progress(stopping.id):
        stopping = told.operation_progress
    assert stopping.status == OperationStatus.SUCCEEDED, stopping


async def day(wanted):
    admin, stranger = client(wanted, wanted["token"]), client(wanted, wanted["stranger"])
    vms, guest = [UUID(vm) for vm in wanted["vms"]], UUID(wanted["guest"])

    me = (await admin.me()).me
    say("me", {"name": me.name, "role": me.role.value, "permissions": me.permissions})

    for number, vm in enumerate(vms):
        await create(admin, f"made-{number}", vm)

    async def listed(after):
        return (await admin.vms(2, VmSort.NAME, after=after, filter_=VmFilter(name="made"))).vms

    say("listed", [[vm.name for vm in page] for page in await pages(listed)])
    newest = (await admin.vms(1, VmSort.NEWEST)).vms.nodes[0]
    say("newest", newest.name)

    shell = CommandInput(unsafe=UnsafeCommandInput(rawCommand="uptime"))
    entry = (await admin.run_command(guest, shell, 20)).execute_vm_command
    assert isinstance(entry.execution_ms, int), entry
    say("ran", {"status": entry.status.value, "success": entry.success, "response": entry.response})
    safe = CommandInput(safe=SafeCommandInput(action=SafeActionName.SYSTEM_INFO))
    await admin.run_command(guest, safe, 20)

    async def logged(after):
        return (await admin.commands(guest, 1, after=after)).command_log

    say("logged", [[entry.type_ for entry in page] for page in await pages(logged)])
    reading = (await admin.vm(guest)).vm
    say("guest", {"connectivity": reading.agent.connectivity.value, "capabilities": reading.agent.capabilities})

    await watch(admin, vms[0])

    bad = CreateVmInput(name="x", image="blank", vcpus=0, memoryMib=128)
    await refused("no processors", admin.create_vm(bad))
    await refused("a name that is taken", admin.rename_vm(vms[0], "made-1"))
    await refused("another's", stranger.delete_vm(vms[0]))
    await refused("nobody's", admin.delete_vm(uuid4()))
    await refused("a shell line of one who may not", stranger.run_command(guest, shell, 5))
    await refused("no such cursor", admin.vms(2, VmSort.NAME, after="nonsense"))
    await refused("a wrong token", client(wanted, "nonsense").me())
    # The refusal comes as a `next` without data, which this client passes over.
    say("another's events", [event.vm_events.type_ async for event in stranger.vm_events(vms[0])])
    say("another's list", [vm.name for vm in (await stranger.vms(20, VmSort.ID)).vms.nodes])

    gone = (await admin.delete_vm(vms[0])).delete_vm
    async for told in admin.operation_progress(gone.operation.id):
        last = told.operation_progress
    assert last.status == OperationStatus.SUCCEEDED and last.progress == 100 and last.error is None, last
    say("deleted", {"there": (await admin.vm(vms[0])).vm is not None})


asyncio.run(day(json.loads(sys.stdin.readline())))
