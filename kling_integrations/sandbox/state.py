"""What all routes of one sandbox share: its options, clock, records, faults and videos."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .faults import ArmedFaults
from .jobs import GatewayClock, Records, SandboxJob
from .payloads import Era
from .signed_urls import UrlSigner
from .video.cache import VideoFiles

Seconds = float | Callable[[str, dict[str, Any]], float] | None
Fail = str | Callable[[str, dict[str, Any]], str | None] | None


@dataclass
class Options:
    """What the user of the sandbox chose; see `Sandbox`."""

    seconds: Seconds = None
    fail: Fail = None
    era: Era | None = None
    logs_show_running: bool = False
    unknown_models: bool = False
    balance: float = 1_000_000.0


@dataclass
class SandboxState:
    """One sandbox, as its routes see it. They run on the sandbox's own event loop."""

    options: Options
    clock: GatewayClock
    records: Records
    faults: ArmedFaults
    videos: VideoFiles
    rng: random.Random
    log: Callable[[str], None]
    signer: UrlSigner = field(default_factory=UrlSigner)
    base_url: str = ""  # known once the server listens
    cdn_origin: str = ""
    jobs_by_slug: dict[str, SandboxJob] = field(default_factory=dict)
    charged: float = 0.0  # sandbox dollars of all jobs, refunds not counted

    def add(self, job: SandboxJob) -> None:
        """Accept a job, and charge for it. The caller holds `records.changed`."""
        self.records.jobs[job.id] = job
        self.jobs_by_slug[job.slug] = job
        self.charged += job.usd

    def available(self) -> float:
        """Sandbox dollars that are left: a failed job is refunded."""
        now = self.clock.now()
        spent = sum(
            job.usd for job in self.records.jobs.values() if not (job.fail and job.end <= now)
        )
        return self.options.balance - spent

    def can_pay(self, usd: float) -> bool:
        # Adding up all jobs at each submit would be slow; without refunds it is one subtraction.
        return self.options.balance - self.charged >= usd or self.available() >= usd
