"""The command line as a user meets it: exit codes, one clear line for every wrong word, answers as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from nodeagent.cli import cli

COMMANDS = (
    "check", "collect", "collect view", "defragment", "direct end", "direct enforce", "direct hold",
    "direct lend", "direct list", "direct observe", "direct recall", "doctor", "events", "exec", "explain",
    "interference", "nic", "once", "replay", "restore", "run", "simulate",
)  # fmt: skip


def commands(of: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    """All of the tree that can be run, by its whole name."""
    if name and (not isinstance(of, click.Group) or of.invoke_without_command):
        yield name, of
    if isinstance(of, click.Group):
        with click.Context(of) as ctx:
            for each in of.list_commands(ctx):
                found = of.get_command(ctx, each)
                assert found is not None
                yield from commands(found, f"{name} {each}".strip())


def nodeagent(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "nodeagent", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60, cwd=cwd)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["rnu"], 2, "did you mean 'run'?"),
        (["direct", "collect"], 2, "no such command 'collect'; there are: end,"),
        (["collect", "veiw"], 2, "did you mean 'view'?"),
        (["xyzzy"], 2, "there are: check, collect, defragment, direct, doctor, events, exec, explain,"),
        (["direct", "collect"], 2, "there are: end, enforce, hold, lend, list, observe, recall"),
        (["explain", "--address", "10.0.0.1:99"], 78, "or node-7.example:9466 with --tls-cert"),
        (["run", "--bogus"], 2, "--bogus"),
        (["once", "-o", "yaml"], 2, "'yaml' is not one of 'text', 'json'"),
        (["exec", "--", "true"], 2, "--qos"),
        (["exec", "--qos", "batsch", "--", "true"], 2, "'batch'"),
        (["exec", "--qos", "batch"], 2, "COMMAND"),
        (["exec", "--qos", "batch", "--cpus", "x", "--", "true"], 2, "--cpus: 'x' is not a number of cores"),
        (["exec", "--qos", "batch", "--cpus", "nan", "--", "true"], 2, "--cpus"),
        (["exec", "--qos", "batch", "--memory", "3Q", "--", "true"], 2, "--memory: not a size: '3Q'"),
        (["exec", "--qos", "batch", "--name", "a/b", "--", "true"], 2, "not a pod name: 'a/b'"),
        (["check", "/does/not/exist"], 78, "/does/not/exist: cannot be read"),
        (["run", "--set", "cpu.flor_cores=1"], 78, "did you mean cpu.floor_cores?"),
        (["run", "--set", "cpu.floor_cores"], 78, "section.key=value"),
        (["run", "--set", "agent.on_exit=restor"], 78, "restore"),
        (["once", "--host-root", "/does/not/exist"], 1, "/does/not/exist/proc/1/mountinfo"),
        (["replay", "/does/not/exist"], 1, "/does/not/exist: No such file or directory"),
        (["restore", "--set", "agent.state_dir=/does/not/exist"], 1, "/does/not/exist: no such directory"),
    ],
)
def test_a_wrong_word_gets_one_clear_line_and_its_exit_code(words: list[str], code: int, said: str) -> None:
    done = nodeagent(*words)
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("nodeagent: "), done.stderr
    assert said in done.stderr


def test_an_unknown_key_in_a_file_is_told_with_its_line_and_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / "na.toml").write_text("[cpu]\nflor_cores = 1\n")
    done = nodeagent("check", "na.toml", cwd=tmp_path)
    assert done.returncode == 78
    assert done.stderr.startswith(
        "nodeagent: na.toml:2: unknown key cpu.flor_cores; did you mean cpu.floor_cores?"
    )


def test_every_command_has_help_that_teaches_and_takes_an_output_form() -> None:
    found = dict(commands(cli))
    assert sorted(found) == sorted(COMMANDS)
    for name, command in found.items():
        text = command.get_help(click.Context(command, info_name=name))
        assert "--output" in text, name
        assert len(text.splitlines()) > 8, name


def test_a_command_that_is_imported_late_has_its_help_too() -> None:
    done = nodeagent("collect", "view", "--help")
    assert done.returncode == 0
    assert "nodeagent collect view" in done.stdout


def test_without_words_it_says_where_to_start() -> None:
    done = nodeagent()
    assert done.returncode == 2
    assert "nodeagent doctor" in done.stderr


def test_check_doctor_and_once_answer_as_json() -> None:
    keys = {row["key"] for row in json.loads(nodeagent("check", "-o", "json").stdout)}
    assert {"agent.mode", "cpu.floor_cores", "scope"} <= keys
    findings = json.loads(nodeagent("doctor", "-o", "json").stdout)
    assert all({"name", "status", "found"} <= finding.keys() for finding in findings)
    tick = json.loads(
        nodeagent("once", "-o", "json", "--set", "agent.tick_s=0.2", "--set", "agent.slow_tick_s=1").stdout
    )
    assert tick["snapshot"]["topology"]["cpus"]
    assert tick["decision"]["capacity"]["cpu"]["terms"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("words", [["check"], ["--help"]])
def test_a_full_disk_behind_stdout_is_one_line_and_exit_1(words: list[str]) -> None:
    command = [sys.executable, "-m", "nodeagent", *words]
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60
        )
    assert (done.returncode, done.stderr) == (1, "nodeagent: no space left on device\n")


def test_a_run_directory_that_cannot_be_made_is_one_line_and_exit_1(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    where = {"agent.state_dir": tmp_path / "state", "agent.run_dir": tmp_path / "file" / "run"}
    words = [word for key, path in where.items() for word in ("--set", f"{key}={path}")]
    done = nodeagent(
        "run", *words, "--set", f"grpc.address=unix:{tmp_path}/s", "--set", "http.address=", "--set",
        "agent.mode=observe",
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1] == f"nodeagent: {tmp_path}/file/run: Not a directory"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--qos", "ls", "--exclusive"), "--exclusive says how to bind, but nothing is to be bound"),
        (("--qos", "ls", "--numa", "bind"), "bind to how many cores? (add --cpus N, or --exclusive"),
        (("--qos", "mid", "--numa", "bind", "--cpus", "2"), "a mid pod cannot be bound"),
        (("--qos", "ls", "--numa", "on"), "'on' is not one of 'bind', 'none'"),
        (("--qos", "ls", "--cpus", "2", "--cpu-limit", "1"), "--cpu-limit 1 is below --cpus 2 (a limit is"),
        (("--qos", "ls", "--cpu-limit", "none"), "'none' is not a number of cores above 0"),
        (("--qos", "batch", "--hands-off"), "--hands-off leaves the pod as it is, --qos batch does not"),
        (("--qos", "ls", "--hands-off", "--numa", "bind", "--cpus", "1"), "--numa bind does not"),
    ],
)
def test_exec_says_what_does_not_go_together(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = nodeagent("exec", "--run-dir", str(tmp_path), *words, "--", "true")
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
