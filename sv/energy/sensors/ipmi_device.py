"""The DCMI power reading through the kernel's IPMI device, without any tool.

Structures and numbers: linux/ipmi.h (stable user interface); the message: DCMI 1.5, section 6.6.1,
Get Power Reading.
"""

import ctypes
import fcntl
import os
import select
import time
from collections.abc import Callable
from pathlib import Path

from sv.energy.sensors.ipmi import check_power_w
from sv.energy.sensors.polled import Measurement, SensorError

DEVICES = (Path("/dev/ipmi0"), Path("/dev/ipmi/0"), Path("/dev/ipmidev/0"))
TIMEOUT_S = 2.0
SYSTEM_INTERFACE, BMC_CHANNEL, RESPONSE = 0x0C, 0x0F, 1  # linux/ipmi.h
GROUP_EXTENSION, GET_POWER_READING, DCMI = 0x2C, 0x02, 0xDC
REQUEST = bytes([DCMI, 0x01, 0x00, 0x00])  # mode 1: system power statistics
RESPONSE_BYTES = 19  # with the completion code
ACTIVE = 0x40
MAX_REPLY = 272  # IPMI_MAX_MSG_LENGTH
MESSAGE_ID = 0x5356

# (netfn, command, data) -> response, which begins with the completion code
Transport = Callable[[int, int, bytes], bytes]


class Address(ctypes.Structure):
    """``struct ipmi_system_interface_addr``."""

    _fields_ = (("type", ctypes.c_int), ("channel", ctypes.c_short), ("lun", ctypes.c_ubyte))


class Message(ctypes.Structure):
    """``struct ipmi_msg``."""

    _fields_ = (
        ("netfn", ctypes.c_ubyte),
        ("cmd", ctypes.c_ubyte),
        ("data_len", ctypes.c_ushort),
        ("data", ctypes.c_void_p),
    )


class Request(ctypes.Structure):
    """``struct ipmi_req``."""

    _fields_ = (
        ("addr", ctypes.c_void_p),
        ("addr_len", ctypes.c_uint),
        ("msgid", ctypes.c_long),
        ("msg", Message),
    )


class Received(ctypes.Structure):
    """``struct ipmi_recv``."""

    _fields_ = (
        ("recv_type", ctypes.c_int),
        ("addr", ctypes.c_void_p),
        ("addr_len", ctypes.c_uint),
        ("msgid", ctypes.c_long),
        ("msg", Message),
    )


def _number(direction: int, command: int, structure: type[ctypes.Structure]) -> int:
    # asm-generic/ioctl.h: direction (2 bits), size (14), type (8), number (8)
    return direction << 30 | ctypes.sizeof(structure) << 16 | ord("i") << 8 | command


SEND_COMMAND = _number(2, 13, Request)  # _IOR
RECEIVE_TRUNCATED = _number(3, 11, Received)  # _IOWR


def parse_response(response: bytes) -> Measurement:
    """Parse the response to Get Power Reading.

    Args:
        response: Completion code (0: done), 0xDC, then little-endian: current, minimum, maximum
            and average power in watts (two bytes each), time stamp in s and averaging window
            in ms (four each), state (bit 6: the measurement is active).

    Raises:
        SensorError: Not completed, not DCMI's, too short, not active, or 0 W.
    """
    if not response or response[0] != 0:
        code = f"0x{response[0]:02X}" if response else "none"
        raise SensorError(f"the controller refused the power reading, completion code {code}")
    if len(response) < RESPONSE_BYTES or response[1] != DCMI:
        raise SensorError(f"not a DCMI power reading: {response.hex(' ')}")
    if not response[18] & ACTIVE:
        raise SensorError("the controller's power measurement is not active")
    current_w = check_power_w(int.from_bytes(response[2:4], "little"))
    stamp_s = int.from_bytes(response[10:14], "little")
    window_ms = int.from_bytes(response[14:18], "little")
    return Measurement(current_w, str(stamp_s), {"statistics_window": f"{window_ms} ms"})


def measure_with(transport: Transport) -> Measurement:
    """Ask for the power through ``transport``."""
    return parse_response(transport(GROUP_EXTENSION, GET_POWER_READING, REQUEST))


def find_device() -> Path | None:
    """Give the IPMI device if there is one that this user may write to."""
    return next((path for path in DEVICES if os.access(path, os.R_OK | os.W_OK)), None)


def build_device(path: Path) -> Callable[[], Measurement]:
    """Build the question to a device; it is opened anew each time, as the tools do."""

    def transport(netfn: int, command: int, data: bytes) -> bytes:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                return _exchange(descriptor, netfn, command, data)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise SensorError(f"{path}: {error.strerror}") from error

    return lambda: measure_with(transport)


def _exchange(descriptor: int, netfn: int, command: int, data: bytes) -> bytes:
    address = Address(SYSTEM_INTERFACE, BMC_CHANNEL, 0)
    sent = ctypes.create_string_buffer(data, len(data))
    message = Message(netfn, command, len(data), ctypes.addressof(sent))
    request = Request(ctypes.addressof(address), ctypes.sizeof(address), MESSAGE_ID, message)
    fcntl.ioctl(descriptor, SEND_COMMAND, request)
    deadline_s = time.monotonic() + TIMEOUT_S
    while (left_s := deadline_s - time.monotonic()) > 0:
        if not select.select([descriptor], [], [], left_s)[0]:
            break
        buffer = ctypes.create_string_buffer(MAX_REPLY)
        reply = Received(
            addr=ctypes.addressof(address),
            addr_len=ctypes.sizeof(address),
            msg=Message(data_len=MAX_REPLY, data=ctypes.addressof(buffer)),
        )
        fcntl.ioctl(descriptor, RECEIVE_TRUNCATED, reply)
        # Events and answers to others come the same way.
        if reply.recv_type == RESPONSE and reply.msgid == MESSAGE_ID:
            return buffer.raw[: reply.msg.data_len]
    raise SensorError(f"the controller did not answer in {TIMEOUT_S:.0f} s")
