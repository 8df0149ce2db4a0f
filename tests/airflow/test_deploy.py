"""The compose files, by what can be told without a container: names, secrets, settings, checks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from kling_integrations.airflow.version_compat import HAS_TABS

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
ONCE = {"init"}  # ends by itself
SERVICE_KEYS = {
    "build",
    "command",
    "depends_on",
    "environment",
    "healthcheck",
    "image",
    "network_mode",
    "ports",
    "restart",
    "volumes",
}


def read(name: str) -> dict[str, Any]:
    return yaml.safe_load((DEPLOY / name).read_text("utf-8"))


BASE, SANDBOX = read("docker-compose.yaml"), read("docker-compose.sandbox.yaml")
SERVICES = {**BASE["services"], "sandbox": SANDBOX["services"]["sandbox"]}


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_services_that_are_there_and_in_a_way_that_they_offer(name):
    service = SERVICES[name]
    assert service.keys() <= SERVICE_KEYS
    for other, how in service.get("depends_on", {}).items():
        match how["condition"]:
            case "service_healthy":
                assert "healthcheck" in SERVICES[other]
            case "service_completed_successfully":
                assert other in ONCE
            case unknown:
                pytest.fail(unknown)


@pytest.mark.parametrize("name", sorted(BASE["services"].keys() - ONCE))
def test_every_service_says_whether_it_is_well(name):
    test = SERVICES[name]["healthcheck"]["test"]
    assert test[0] in ("CMD", "CMD-SHELL")
    if test[0] == "CMD-SHELL":
        assert len(test) == 2
        assert "${" not in test[1].replace("$${", "")  # compose would put its own variable there


def test_every_volume_is_declared_or_a_folder():
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            source = re.sub(r"^\$\{[A-Z_]+:-(.*?)\}", r"\1", volume).partition(":")[0]
            assert source in BASE["volumes"] or (DEPLOY / source).is_dir(), volume


def test_secrets_have_no_default_and_are_the_same_for_all_parts():
    values = {
        name: service["environment"]
        for name, service in BASE["services"].items()
        if service.get("image") == "kling-airflow"
    }
    for name in ("CORE__FERNET_KEY", "API__SECRET_KEY", "API_AUTH__JWT_SECRET"):
        found = {environment[f"AIRFLOW__{name}"] for environment in values.values()}
        assert len(found) == 1
        assert ":?" in found.pop()


@pytest.mark.skipif(not HAS_TABS, reason="the image is of a newer Airflow")
def test_every_setting_is_one_that_airflow_or_this_provider_knows():
    from airflow.configuration import conf

    from kling_integrations.airflow.get_provider_info import OPTIONS

    for variable in BASE["x-airflow"]["environment"]:
        if match := re.fullmatch(r"AIRFLOW__([A-Z_]+?)__([A-Z_]+)", variable):
            section, option = (each.lower() for each in match.groups())
            if section == "kling":
                assert option in OPTIONS
            else:
                known = conf.configuration_description[section]["options"]
                assert option in known or section == "celery", variable


def test_the_sandbox_is_laid_over_services_that_are_there():
    assert SANDBOX["services"].keys() - {"sandbox"} <= BASE["services"].keys()
    for name, service in SANDBOX["services"].items():
        if name != "sandbox":
            assert service["network_mode"] == "service:sandbox"


def test_what_the_image_is_made_of_is_there_and_nothing_large_is_sent():
    for line in (DEPLOY / "Dockerfile").read_text("utf-8").splitlines():
        if line.startswith("COPY"):
            *sources, _ = [word for word in line.split()[1:] if not word.startswith("--")]
            assert all((ROOT / source).exists() for source in sources), line
    ignored = (ROOT / ".dockerignore").read_text("utf-8").split()
    assert "*" in ignored or any(line.startswith(".venv") for line in ignored)
