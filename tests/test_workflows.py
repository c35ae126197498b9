"""The workflows: pinned by commit, with no more permissions than they need; bots and forms."""

import json
import os
import re
import subprocess
import sys
import tomllib
from dataclasses import asdict

import pytest
import torch
import yaml
from conftest import ROOT

import llbook
from llbook.runs.policies import save_policy

# a workflow of this repository, which has no commit of its own
OWN = "./.github/workflows/site.yml # zizmor: ignore[self-repository]"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
# what a job may do beyond reading, and why it is written down beside it in the workflow
WRITES = {
    "pages": {
        "deploy": {"pages": "write", "id-token": "write"},
        "notebooks": {"contents": "write"},
    },
    "release": {"draft": {"contents": "write"}},
    "records": {"propose": {"contents": "write", "pull-requests": "write"}},
}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_actions_are_pinned_by_commit(path):
    uses = re.findall(r"uses: (.*)", path.read_text())
    assert uses
    for line in uses:
        assert line == OWN or re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40} # v[0-9.]+", line), line


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_permissions_are_least(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        allowed = WRITES.get(path.stem, {}).get(name, {"contents": "read"})
        assert job["permissions"] == allowed
        if "uses" in job:  # has its time and its steps there
            assert "secrets" not in job
            continue
        assert job["timeout-minutes"] > 0
        for step in job["steps"]:
            # values of events reach the shell by the environment only
            assert "${{" not in step.get("run", "")
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False


def test_one_action_has_one_commit():
    lines = {line for path in WORKFLOWS for line in re.findall(r"uses: (.*)", path.read_text())}
    lines -= {OWN}
    names = [line.partition("@")[0] for line in lines]
    assert len(names) == len(set(names))


def test_tools_of_pre_commit_are_those_of_the_lock():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    lock = (ROOT / "requirements.lock").read_text().splitlines()
    for hook in hooks:
        for pin in hook.get("additional_dependencies", []):
            assert "==" in pin
            assert pin in lock or not pin.startswith("ruff")


def test_what_jobs_hand_over_is_what_others_take():
    for path in WORKFLOWS:
        jobs = yaml.safe_load(path.read_text())["jobs"]
        made = {"site", "launch"} if any("uses" in job for job in jobs.values()) else set()
        steps = [step for job in jobs.values() for step in job.get("steps", [])]
        names = {"upload": made, "download": set()}
        for step in steps:
            if found := re.match(r"actions/(upload|download)-artifact@", step.get("uses", "")):
                names[found[1]].add(step["with"]["name"])
        assert names["download"] <= made


def test_a_release_has_the_sums_of_its_policies(tmp_path):
    workflow = yaml.safe_load((WORKFLOWS[0].parent / "release.yml").read_text())
    script = workflow["jobs"]["assets"]["steps"][-2]["run"]
    (sums,) = re.findall(r"^python -c '\n.*?^' .*$", script, re.DOTALL | re.MULTILINE)
    for folder in ("assets", "book/records"):
        (tmp_path / folder).mkdir(parents=True)
    command = ["bash", "-c", sums.replace("python", sys.executable, 1)]
    told = os.environ | {"GITHUB_REF_NAME": f"v{llbook.__version__}"}
    written = tmp_path / "assets" / "SHA256SUMS"
    subprocess.run(command, cwd=tmp_path, env=told, check=True)
    assert written.read_text() == ""
    deposit = save_policy(torch.eye(3), tmp_path / "assets" / "near.npz")
    listed = {
        "near": asdict(deposit),
        "older": asdict(deposit) | {"url": "releases/download/v0/o.npz"},
    }
    (tmp_path / "book" / "records" / "policies.json").write_text(json.dumps(listed))
    subprocess.run(command, cwd=tmp_path, env=told, check=True)
    assert written.read_text() == f"{deposit.sha256}  near.npz\n"


def test_one_workflow_builds_the_site_for_pages_release_and_preview():
    callers = [path.stem for path in WORKFLOWS if OWN in path.read_text()]
    assert callers == ["pages", "release", "tests"]
    text = (WORKFLOWS[0].parent / "site.yml").read_text()
    assert "LLBOOK_PDF=build/llbook.pdf make book" in text


def test_tests_run_on_both_systems_with_the_oldest_and_the_newest_versions():
    workflow = yaml.safe_load((WORKFLOWS[0].parent / "tests.yml").read_text())
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]["include"]
    assert {entry["os"].partition("-")[0] for entry in matrix} == {"ubuntu", "macos"}
    assert {entry["versions"] for entry in matrix} == {"locked", "lowest-direct", "highest"}
    assert {entry["python"] for entry in matrix} == {"3.11", "3.12"}


def test_forms_and_bots_are_well_formed():
    forms = {path.stem: yaml.safe_load(path.read_text()) for path in FORMS}
    assert forms.keys() == {"config", "number", "wrong"}
    for name in ("number", "wrong"):
        ids = [field["id"] for field in forms[name]["body"]]
        assert len(ids) == len(set(ids))
        assert any(field.get("validations", {}).get("required") for field in forms[name]["body"])
    bot = yaml.safe_load((ROOT / ".github" / "dependabot.yml").read_text())
    assert {entry["package-ecosystem"] for entry in bot["updates"]} == {"github-actions", "pip"}


def test_patterns_of_links_are_patterns():
    settings = tomllib.loads((ROOT / ".lychee.toml").read_text())
    made_up = "https://github.com/OWNER/NAME/releases"
    assert any(re.search(pattern, made_up) for pattern in settings["exclude"])
    assert not any(re.search(p, "https://arxiv.org/abs/2402.17759") for p in settings["exclude"])
