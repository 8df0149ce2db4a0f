"""The gateway on loopback: the documented contract, real MP4s, faults on demand.

For trying things without a key and without money, and for tests that use real sockets::

    with Sandbox(speed=60) as sandbox:
        client = KlingClient(api_key="sandbox", base_url=sandbox.base_url)

It is written from the gateway's documents alone and shares no code with the client's own reading
of them, so that a misreading on one side shows up as a disagreement. Nothing leaves the machine.
"""

from kling_integrations.sandbox.faults import KINDS, Fault
from kling_integrations.sandbox.jobs import Job, Post
from kling_integrations.sandbox.payloads import ERAS, Era
from kling_integrations.sandbox.serve import serve
from kling_integrations.sandbox.server import Sandbox

__all__ = ["ERAS", "KINDS", "Era", "Fault", "Job", "Post", "Sandbox", "serve"]
