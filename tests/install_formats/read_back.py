"""Reads installers' files as their own readers do, and tells what they say.

Standard input: a JSON list of {"family", "dir"}; standard output: a JSON list of facts, in the same
order. A file that cannot be read is a traceback, and that is a failed test.
"""

import base64
import gzip
import json
import os
import re
import sys
import xml.etree.ElementTree as ET

import yaml
from pykickstart.parser import KickstartParser
from pykickstart.version import makeVersion


def text(*path):
    with open(os.path.join(*path), encoding="utf-8", newline="") as file:
        return file.read()


def commands(files, ending, mark=""):
    names = sorted(name for name in files if name.startswith("first-boot/"))
    found = []
    for name in names:
        assert name.endswith(ending), name
        content = files[name].decode("utf-8")
        assert content.startswith(mark) and content.endswith("\n"), name
        found.append(content[len(mark) : -1])
    return found


def tree(root):
    files = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = os.path.join(folder, name)
            with open(path, "rb") as file:
                files[os.path.relpath(path, root)] = file.read()
    return files


def lines(content):
    """Lines as Unix has them; Python knows others."""
    return content.decode("utf-8").split("\n")[:-1] if content else []


def account(user_data):
    users = user_data.get("users") or [{}]
    return users[0]


def cloud(user_data):
    user = account(user_data)
    keyboard = user_data.get("keyboard")
    return {
        "user": user.get("name"),
        "password": user.get("passwd"),
        "ssh_keys": user.get("ssh_authorized_keys", user_data.get("ssh_authorized_keys", [])),
        "hostname": user_data["hostname"],
        "timezone": user_data.get("timezone"),
        "locale": user_data.get("locale"),
        "keyboard": keyboard and xkb(keyboard["layout"], keyboard.get("variant")),
        "packages": user_data.get("packages", []),
        "commands": [line[2] for line in user_data.get("runcmd", [])],
    }


def xkb(layout, variant):
    return f"{layout}({variant})" if variant else layout


def cloud_image(root):
    return cloud(yaml.safe_load(text(root, "user-data")))


def ubuntu(root):
    document = yaml.safe_load(text(root, "user-data"))
    assert list(document) == ["autoinstall"], list(document)
    answers = document["autoinstall"]
    facts = cloud(answers["user-data"])
    facts["locale"] = answers["locale"]
    facts["keyboard"] = xkb(answers["keyboard"]["layout"], answers["keyboard"]["variant"])
    facts["answers"] = answers
    return facts


def newc(archive):
    """The files of a newc archive; modes and owners are looked at on the way."""
    files, at = {}, 0
    while True:
        assert archive[at : at + 6] == b"070701", at
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        _, mode, user, group, _, _, size, _, _, _, _, length, _ = fields
        name = archive[at + 110 : at + 110 + length - 1].decode()
        assert archive[at + 110 + length - 1] == 0, name
        at += (110 + length + 3) // 4 * 4
        if name == "TRAILER!!!":
            assert not archive[at:].strip(b"\0")
            return files
        assert (user, group) == (0, 0) and mode in (0o100444, 0o040755), (name, oct(mode))
        if mode == 0o100444:
            files[name] = archive[at : at + size]
        at += (size + 3) // 4 * 4


def preseed(content):
    answers = {}
    for line in lines(content):
        if not line.strip() or line.startswith("#"):
            continue
        _, question, kind, *value = line.split(" ", 3)
        assert question not in answers, question
        answers[question] = [kind, value[0] if value else ""]
    return answers


def debian(root):
    with gzip.open(os.path.join(root, "initrd.gz")) as file:
        files = newc(file.read())
    answers = preseed(files["preseed.cfg"])

    def say(question):
        return answers[question][1] if question in answers else None

    host, domain = say("netcfg/get_hostname"), say("netcfg/get_domain")
    password = say("passwd/user-password-crypted")
    return {
        "user": say("passwd/username"),
        "password": None if password == "!" else password,
        "ssh_keys": lines(files.get("infinibay/authorized_keys")),
        "hostname": f"{host}.{domain}" if domain else host,
        "timezone": say("time/zone"),
        "locale": say("debian-installer/locale"),
        "keyboard": say("keyboard-configuration/xkb-keymap"),
        "packages": say("pkgsel/include").split(" ") if say("pkgsel/include") else [],
        "commands": commands(files, ".sh"),
        "answers": answers,
        "files": sorted(files),
    }


# The reader keeps a set: their order is lost.
OURS = ("openssh-server", "sudo", "curl")


def redhat(root):
    parser = KickstartParser(makeVersion("RHEL9"))
    parser.readKickstart(os.path.join(root, "ks.cfg"))
    read = parser.handler
    users = read.user.userList
    assert len(users) <= 1
    layouts = read.keyboard.x_layouts
    assert len(layouts) == 1, layouts
    files = tree(root)
    assert not read.sshkey.sshUserList
    assert lines(files.get("infinibay/user")) in ([], [users[0].name if users else "root"])
    return {
        "user": users[0].name if users else None,
        "password": (users[0].password or None) if users else None,
        "ssh_keys": lines(files.get("infinibay/authorized_keys")),
        "hostname": read.network.network[0].hostname,
        "timezone": read.timezone.timezone,
        "locale": read.lang.lang,
        "keyboard": re.sub(r" (\(.*\))$", r"\1", layouts[0]),
        "packages": [p for p in read.packages.packageList if p not in OURS],
        "commands": commands(files, ".sh"),
        "sections": sorted(script.type for script in parser.handler.scripts),
        "root_locked": read.rootpw.lock,
    }


UNATTEND = "{urn:schemas-microsoft-com:unattend}"


def shown(hidden, element):
    plain = base64.b64decode(hidden, validate=True).decode("utf-16-le")
    assert plain.endswith(element)
    return plain[: -len(element)]


def windows(root):
    document = ET.parse(os.path.join(root, "autounattend.xml")).getroot()
    assert document.tag == UNATTEND + "unattend"
    settings = {}

    def walk(path, node):
        for child in node:
            name = child.tag.removeprefix(UNATTEND)
            if len(child):
                walk(f"{path}/{name}", child)
            else:
                settings.setdefault(f"{path}/{name}", []).append(child.text)

    for part in document:
        for component in part:
            assert component.attrib["processorArchitecture"] == "amd64"
            assert component.attrib["publicKeyToken"] == "31bf3856ad364e35"
            walk(f"{part.attrib['pass']}/{component.attrib['name']}", component)

    def one(path):
        found = settings.get(path, [None])
        assert len(found) == 1, path
        return found[0]

    shell = "oobeSystem/Microsoft-Windows-Shell-Setup"
    local = f"{shell}/UserAccounts/LocalAccounts/LocalAccount"
    files = tree(root)
    logon = shown(one(f"{shell}/AutoLogon/Password/Value"), "Password")
    assert logon == shown(one(f"{local}/Password/Value"), "Password")
    assert one(f"{shell}/AutoLogon/Username") == one(f"{local}/Name")
    return {
        "user": one(f"{local}/Name"),
        "password": logon,
        "ssh_keys": lines(files.get("infinibay/authorized_keys")),
        "hostname": one("specialize/Microsoft-Windows-Shell-Setup/ComputerName"),
        "timezone": one("specialize/Microsoft-Windows-Shell-Setup/TimeZone"),
        "locale": one("oobeSystem/Microsoft-Windows-International-Core/UserLocale"),
        "keyboard": one("oobeSystem/Microsoft-Windows-International-Core/InputLocale"),
        "packages": [],
        "product_key": one("windowsPE/Microsoft-Windows-Setup/UserData/ProductKey/Key"),
        "commands": commands(files, ".ps1", "\ufeff"),
        "settings": settings,
    }


READERS = {
    "cloud": cloud_image,
    "ubuntu": ubuntu,
    "debian": debian,
    "redhat": redhat,
    "windows": windows,
}
json.dump([READERS[asked["family"]](asked["dir"]) for asked in json.load(sys.stdin)], sys.stdout)
