"""Attacks on the kernel and on other processes."""

from __future__ import annotations

from attacks.catalogue import attack
from attacks.ground import Ground, stopped
from envs.sandbox import Graded, GraderError


@attack(50)
async def ptrace_parent(g: Ground) -> None:
    code = """
buffer = ctypes.create_string_buffer(64)
vector = struct.pack("QQ", ctypes.addressof(buffer), 64)
remote = struct.pack("QQ", 0x400000, 64)
parent = os.getppid()
worked(traceme=lambda: call(101, 0, 0, 0, 0), attach=lambda: call(101, 16, parent, 0, 0),
       read=lambda: call(310, parent, vector, 1, remote, 1, 0), write=lambda: call(311, parent, vector, 1, remote, 1, 0),
       getfd=lambda: call(438, os.pidfd_open(parent), 0, 0), kcmp=lambda: call(312, parent, os.getpid(), 0, 0, 0))
"""
    stopped(await g.python(code))


@attack(51)
async def kill_all(g: Ground) -> None:
    async with g.box() as box:
        code = """
for target in (-1, os.getppid(), 1):
    try: os.kill(target, signal.SIGKILL)
    except OSError: pass
for pid in range(1, 40000):
    if pid != os.getpid():
        try: os.kill(pid, signal.SIGKILL)
        except OSError: pass
"""
        for _ in range(2):
            await box.python(code)
        assert (await box.sh("echo alive")).stdout == b"alive\n"
    for target in ("-1", "os.getppid()", "1", "2"):
        await g.grade(f"import os\ndef grade(s, i):\n os.kill({target}, 9)\n return 1.0")
        await g.works()


@attack(52)
async def new_userns(g: Ground) -> None:
    code = """
worked(unshare=lambda: call(272, 0x10000000), net=lambda: call(272, 0x40000000), mnt=lambda: call(272, 0x20000),
       setns=lambda: call(308, os.open("/proc/self/ns/net", os.O_RDONLY), 0), clone3=lambda: call(435, 0, 0))
def clone():
    pid = call(56, 0x10000000 | 17, 0, 0, 0, 0)
    if pid == 0: os._exit(0)
worked(clone=clone)
"""
    stopped(await g.python(code))


@attack(53)
async def mount_and_its_kin(g: Ground) -> None:
    code = """
worked(mount=lambda: call(165, b"none", b"/tmp", b"tmpfs", 0, 0), umount=lambda: call(166, b"/proc", 2),
       pivot=lambda: call(155, b".", b"."), chroot=lambda: os.chroot("."), move=lambda: call(429, -1, b"", -1, b"", 0),
       open_tree=lambda: call(428, -100, b"/", 1), fsopen=lambda: call(430, b"tmpfs", 0), setattr=lambda: call(442, -100, b"/", 0, b"x" * 32, 32))
buffer = ctypes.create_string_buffer(24)
header = struct.pack("Ii", 0x20080522, 0)
C.capget(header, buffer)
def powers():
    if not any(buffer.raw): raise OSError("no capabilities")
worked(powers=powers)
"""
    stopped(await g.python(code))
    source = "def grade(s, i):\n lines = open('/proc/self/status').read().splitlines()\n"
    source += " return float(any(int(l.split()[1], 16) for l in lines if l.startswith(('CapEff', 'CapPrm', 'CapInh'))))"
    outcome = await g.grade(source)
    assert isinstance(outcome, GraderError) or getattr(outcome, "value", 1.0) == 0.0, outcome


@attack(54)
async def setuid0_su(g: Ground) -> None:
    async with g.box() as box:
        code = """
worked(setuid=lambda: os.setuid(0), setresuid=lambda: os.setresuid(0, 0, 0), setgroups=lambda: os.setgroups([0]),
       setgid=lambda: os.setgid(0))
def new():
    if C.prctl(39, 0, 0, 0, 0) == 1: raise OSError("no new privileges")
worked(new=new)
"""
        stopped(await box.python(code))
        result = await box.sh("id -u; su -c 'echo WORKED' </dev/null; sudo -n echo WORKED")
        assert b"WORKED" not in result.stdout
        assert 0 not in await g.users_outside(box)


@attack(55)
async def proc_sys_write(g: Ground) -> None:
    code = """
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/printk", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches",
             "/sys/kernel/uevent_helper", "/proc/sys/kernel/modprobe", "/proc/irq/0/smp_affinity"):
    worked(**{path: lambda: os.close(os.open(path, os.O_WRONLY))})
"""
    stopped(await g.python(code))


@attack(56)
async def keyring(g: Ground) -> None:
    code = """
worked(keyctl=lambda: call(250, 0, -3, 0), add=lambda: call(248, b"user", b"x", b"y", 1, -3),
       request=lambda: call(249, b"user", b"x", 0, -3))
"""
    stopped(await g.python(code))


@attack(57)
async def large_surfaces(g: Ground) -> None:
    calls = {
        "io_uring": "425, 1, ctypes.create_string_buffer(120)",
        "bpf": "321, 0, ctypes.create_string_buffer(64), 64",
        "perf": "298, ctypes.create_string_buffer(112), 0, -1, -1, 0",
        "userfaultfd": "323, 1",
        "kexec": "246, 0, 0, 0, 0",
        "module": "313, 0, b'', 0",
        "ldt": "154, 0, ctypes.create_string_buffer(64), 64",
        "handle": "304, -100, ctypes.create_string_buffer(64), 0",
        "name_to_handle": "303, -100, b'/usr', struct.pack('Ii', 128, 0) + bytes(128), ctypes.create_string_buffer(8), 0",
        "personality": "135, 0xffffffff",
        "fanotify": "300, 0, 0",
        "memfd_secret": "447, 0",
        "quotactl": "179, 0, 0, 0, 0",
        "swapon": "167, b'/x', 0",
        "reboot": "169, 0, 0, 0, 0",
        "acct": "163, 0",
        "iopl": "172, 3",
        "syslog": "103, 10, 0, 0",
        "migrate": "256, 0, 1, b'\\0' * 8, b'\\0' * 8",
    }
    stopped(await g.python("".join(f"worked({name}=lambda: call({text}))\n" for name, text in calls.items())))


INT80 = """
import mmap
page = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 7)
page.write(bytes.fromhex("b814000000cd80c3"))  # mov eax, 20; int 0x80; ret
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
print("WORKED", ctypes.CFUNCTYPE(ctypes.c_int)(address)())
"""


@attack(58)
async def x32_or_i386_syscall(g: Ground) -> None:
    for code in (INT80, "print('WORKED', call(0x40000000 + 39))"):
        result = await g.python(code)
        assert b"WORKED" not in result.stdout and (result.signal == 31 or not g.layers & {"seccomp"}), result


@attack(59)
async def future_syscall(g: Ground) -> None:
    code = """
for number in (470, 600, 9999):
    try: call(number)
    except OSError as error: print("stopped" if error.errno == errno.ENOSYS else "WORKED", file=sys.stderr)
def listed(): call(457, struct.pack("IIQQ", 24, 0, 1, 1), ctypes.create_string_buffer(512), 512, 0)
try: listed()
except OSError as error: print("WORKED statmount" if error.errno not in (errno.EPERM, errno.ENOSYS) else "")
"""
    result = await g.python(code)
    stopped(result)
    assert b"WORKED" not in result.stderr


@attack(60)
async def clock_change(g: Ground) -> None:
    code = """
now = time.time()
worked(settime=lambda: time.clock_settime(0, now), settimeofday=lambda: call(164, struct.pack("qq", int(now), 0), 0),
       adjtimex=lambda: call(159, ctypes.create_string_buffer(208)), adjtime=lambda: call(305, 0, ctypes.create_string_buffer(208)))
"""
    stopped(await g.python(code))


@attack(61)
async def dev_abuse(g: Ground) -> None:
    code = """
import fcntl, pty, termios
for device in ("mem", "kmsg", "fuse", "kvm", "loop0", "loop-control", "tty", "console", "vda", "port", "uinput", "net/tun"):
    worked(**{device: lambda: os.open("/dev/" + device, os.O_RDWR | os.O_NOCTTY)})
def typed(): fcntl.ioctl(0, 0x5412, b"x")
def through_pty():
    main, side = pty.openpty()
    fcntl.ioctl(side, 0x5423, struct.pack("i", 3))
worked(typed=typed, line_discipline=through_pty)
worked(session=lambda: os.close(os.open("/dev/tty", os.O_RDWR)))
"""
    stopped(await g.python(code))


@attack(62)
async def proc_info(g: Ground) -> None:
    if g.inside:
        result = await g.python(
            "print(json.dumps([p for p in os.listdir('/proc') if p.isdigit()]))\nprint(os.uname().nodename)"
        )
        pids, node = result.stdout.splitlines()
        assert len(eval(pids)) <= 3, result
        assert node == b"sandbox", "the machine's name is seen"
        code = """
def groups():
    if "localrft" not in open("/proc/self/cgroup").read(): raise OSError("no path")
def session():
    if os.getsid(1) != 0: raise OSError("a session of its own")
worked(groups=groups, session=session)
"""
        stopped(await g.python(code))
    else:
        stopped(
            await g.python("worked(list=lambda: os.listdir('/proc'), cmdline=lambda: open('/proc/cmdline').read())")
        )
    outcome = await g.grade(
        "import os\ndef grade(s, i): return float(len([p for p in os.listdir('/proc') if p.isdigit()]))", high=1e6
    )
    assert isinstance(outcome, GraderError) or (isinstance(outcome, Graded) and outcome.value <= 2), outcome
