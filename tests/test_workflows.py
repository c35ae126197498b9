"""The workflows: pinned by commit, with no more permissions than they need."""

import re

import pytest
import yaml
from conftest import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
# what a job may do beyond reading, and why it is written down beside it in the workflow
WRITES = {
    "pages": {
        "deploy": {"pages": "write", "id-token": "write"},
        "notebooks": {"contents": "write"},
    },
    "records": {"propose": {"contents": "write", "pull-requests": "write"}},
}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit(path):
    uses = re.findall(r"uses: (.*)", path.read_text())
    assert uses
    for line in uses:
        assert re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v[0-9.]+", line), line


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_permissions_are_least(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        allowed = WRITES.get(path.stem, {}).get(name, {"contents": "read"})
        assert job["permissions"] == allowed
        assert job["timeout-minutes"] > 0
        for step in job["steps"]:
            # values of events reach the shell by the environment only
            assert "${{" not in step.get("run", "")
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_one_action_has_one_commit():
    lines = {line for path in WORKFLOWS for line in re.findall(r"uses: (.*)", path.read_text())}
    names = [line.partition("@")[0] for line in lines]
    assert len(names) == len(set(names))


def test_tools_of_pre_commit_are_those_of_the_lock():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    for hook in hooks:
        for pin in hook.get("additional_dependencies", []):
            assert "==" in pin
            assert pin in lock or not pin.startswith("ruff")
