"""The gateway on loopback: the documented contract, real MP4s, faults on demand.

For trying things without a key and without money, and for tests that use real sockets::

    with Sandbox(speed=60) as sandbox:
        client = KlingClient(api_key="sandbox", base_url=sandbox.base_url)

It is written from the gateway's documents alone and shares no code with the client's own reading
of them, so that a misreading on one side shows up as a disagreement. Nothing leaves the machine.
"""

from .faults import KINDS, Fault
from .jobs import Post, SandboxJob
from .payloads import ERAS, Era
from .serve import fault_help, serve
from .server import Sandbox

__all__ = ["ERAS", "KINDS", "Era", "Fault", "Post", "Sandbox", "SandboxJob", "fault_help", "serve"]
