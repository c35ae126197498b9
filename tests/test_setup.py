"""pyproject.toml, lock and conda environment against each other; the other files of the set-up."""

import json
import os
import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from conftest import ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import llbook

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = [
    *PROJECT["dependencies"],
    *(line for extra in PROJECT["optional-dependencies"].values() for line in extra),
]
LINES = [
    line
    for line in (ROOT / "requirements.lock").read_text().splitlines()
    if line and not line.lstrip().startswith("#")
]
LOCK = {canonicalize_name(name): Version(v) for name, _, v in (s.partition("==") for s in LINES)}


def test_lock_has_nothing_but_exact_portable_versions():
    for line in LINES:
        assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*==[0-9][0-9a-z.]*", line), line
    assert len(LOCK) == len(LINES)
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"https?:|file:|/[a-z]+/|--index|--find", text)
    assert not [name for name in LOCK if name.startswith(("nvidia-", "cuda-"))]


@pytest.mark.parametrize("line", REQUIREMENTS)
def test_lock_satisfies_every_requirement(line):
    requirement = Requirement(line)
    assert requirement.specifier.contains(LOCK[canonicalize_name(requirement.name)])


def test_versions_that_the_book_relies_on():
    assert str(LOCK["jupyter-book"]) == "1.0.4.post1"
    assert str(LOCK["torch"]) == "2.13.0"
    assert "TORCH_VERSION := 2.13.0" in (ROOT / "Makefile").read_text()


def test_conda_environment_is_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-r requirements.lock", "-e ."]}
    versions = {Requirement(line).name: Requirement(line).specifier for line in conda}
    # nothing that the lock pins comes from conda, where its version would be another
    assert not versions.keys() & LOCK.keys()
    minimum = Requirement(f"python{PROJECT['requires-python']}").specifier
    for version in ("3.10", "3.11", "3.12"):
        assert versions["python"].contains(version) == minimum.contains(version)


@pytest.mark.parametrize("name", ["default", "cpu"])
def test_locks_with_hashes_have_the_versions_of_the_lock(name):
    text = (ROOT / "locks" / f"{name}.txt").read_text()
    blocks = re.findall(r"^([a-z0-9][\w.-]*)==([^ ]+)(.*(?:\n    --hash=.*)+)", text, re.MULTILINE)
    versions = {}
    for package, version, rest in blocks:
        versions.setdefault(canonicalize_name(package), set()).add(Version(version).public)
        assert re.search(r"--hash=sha256:[0-9a-f]{64}(?: |$)", rest, re.MULTILINE)
    assert text.count("==") - text.count("== '") == len(blocks)  # each has hashes
    # tools of pip's own, and what another system than that of the lock needs, may be beside it
    assert {package: {str(version)} for package, version in LOCK.items()}.items() <= (
        versions.items()
    )
    for_a_gpu = [package for package in versions if package.startswith(("nvidia-", "cuda-"))]
    assert bool(for_a_gpu) == (name == "default")
    torch = re.findall(r"^torch==(\S+)( ; sys_platform == '\w+')? ", text, re.MULTILINE)
    cpu = [("2.13.0+cpu", " ; sys_platform == 'linux'"), ("2.13.0", " ; sys_platform == 'darwin'")]
    assert torch == ([("2.13.0", "")] if name == "default" else cpu)


def test_setting_up_with_hashes_takes_nothing_else():
    shown = subprocess.run(
        ["make", "-n", "setup", "VENV=build/none", "HASHES=1", "TORCH=cpu"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (line,) = [line for line in shown.splitlines() if "pip install" in line and " -r " in line]
    assert "--require-hashes -r locks/cpu.txt" in line
    assert "torch==" not in shown


def test_the_container_sets_itself_up_without_a_gpu():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["onCreateCommand"].endswith("make setup TORCH=cpu HASHES=1")


# https://developers.zenodo.org/#representation: what a deposit may say, and what it has to
ZENODO = {
    "required": {"title", "upload_type", "description", "creators"},
    "known": {
        *("access_conditions", "access_right", "communities", "contributors", "creators", "dates"),
        *("description", "doi", "embargo_date", "grants", "keywords", "language", "license"),
        *("locations", "method", "notes", "publication_date", "references", "related_identifiers"),
        *("subjects", "title", "upload_type", "version"),
    },
}


def test_deposit_at_zenodo():
    deposit = json.loads((ROOT / ".zenodo.json").read_text())
    assert ZENODO["required"] <= deposit.keys() <= ZENODO["known"]
    assert deposit["version"] == llbook.__version__
    assert deposit["upload_type"] == "software"
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert deposit["title"] == citation["title"]
    assert [c["name"] for c in deposit["creators"]] == [a["name"] for a in citation["authors"]]
    paper = citation["preferred-citation"]["identifiers"][0]["value"]
    assert [other["identifier"] for other in deposit["related_identifiers"]] == [paper]


def test_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert citation["version"] == llbook.__version__
    for identifier in citation.get("identifiers", []):
        assert re.fullmatch(r"10\.\d+/\S+", identifier["value"])
    paper = citation["preferred-citation"]
    assert paper["identifiers"][0]["value"] == "arXiv:2402.17759"
    assert len(paper["authors"]) == 6


def test_make_help_lists_every_target():
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert set(re.findall(r"^  ([a-z]+) ", listed, re.MULTILINE)) == set(phony)


@pytest.mark.parametrize(
    ("had", "asked", "status"),
    [
        ("default", ["TORCH=cpu"], 2),
        ("cpu", ["TORCH=default"], 2),
        ("cpu", ["TORCH=cpu"], 0),
        ("cpu", [], 0),
        ("", ["TORCH=cpu"], 0),  # made before this was written down
    ],
)
def test_another_pytorch_than_the_environment_has_is_not_ignored(tmp_path, had, asked, status):
    (tmp_path / ".ready").write_text(f"{had}\n" if had else "")
    result = subprocess.run(
        ["make", "--no-print-directory", "setup", f"VENV={tmp_path}", *asked],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={name: value for name, value in os.environ.items() if name != "TORCH"},
    )
    assert result.returncode == status, result.stderr
    assert (f"was set up with TORCH={had}" in result.stderr) == bool(status)


def test_importing_the_package_is_light():
    heavy = "import llbook, sys; sys.exit(any(m in sys.modules for m in ('torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", heavy], cwd=ROOT).returncode == 0


def test_code_is_as_ruff_wants_it():
    for arguments in (["check"], ["format", "--check"]):
        result = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "llbook", "tests"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stdout + result.stderr
