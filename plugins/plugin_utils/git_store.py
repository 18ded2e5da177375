# Copyright (c) 2026, mlops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The runs in a Git repository, one commit per run. Only for the controller."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import socket
import subprocess
import tempfile
import typing as t

from ansible import constants

from ansible_collections.mlops.fleet.plugins.module_utils._core.errors import (
    NotUsable,
    OptionError,
    StoreError,
)
from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet import history
from ansible_collections.mlops.fleet.plugins.module_utils._core.fleet.faults import clean
from ansible_collections.mlops.fleet.plugins.module_utils._core.system.files import atomic_write
from ansible_collections.mlops.fleet.plugins.module_utils._core.system.locks import lock

#: Seconds for one call of git, such as a clone.
TIMEOUT = 300.0
#: How often a commit is put on top of those that other controllers pushed meanwhile.
ATTEMPTS = 8
#: Variables that would send git to another repository than the configured one.
_ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_NAMESPACE")
_REMOTE = "refs/remotes/origin/"
_REJECTED = re.compile(
    r"\[rejected\]|\[remote rejected\]|cannot lock ref|fetch first|non-fast-forward"
)


class GitStore:
    """A directory of a Git repository; implements history.Store.

    A repository that has a working tree on this machine is used in place: a run is a commit on the
    branch that is checked out, pushed where the branch has an upstream. Any other is cloned into a
    temporary directory, without its past, and pushed to.

    :param place: path or URL, then optionally ``#BRANCH`` or ``#BRANCH:DIRECTORY``.
    :raises OptionError: the place can't be used. :raises StoreError: git failed.
    """

    def __init__(self, place: str) -> None:
        repository, dummy, rest = place.partition("#")
        self._branch, dummy, below = rest.partition(":")
        self._below = below.strip("/")
        self.place = "git+" + history.without_secrets(place)
        if not repository or repository.startswith("-") or self._branch.startswith("-"):
            raise OptionError(
                f"{self.place} names no Git repository.",
                "Give git+ and a URL or a path.",
                "history",
            )
        if ".." in self._below.split("/") or ".git" in self._below.split("/"):
            raise OptionError(
                f"The directory in {self.place} must be below the top of the repository.",
                "",
                "history",
            )
        self._author: list[str] | None = None
        self._secret = history.secret_of(repository)
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._cloned = not os.path.exists(os.path.join(repository, ".git"))
        if self._cloned:
            self._tree = self._clone(repository)
        else:
            self._tree = os.path.abspath(repository)
            current = self._git("symbolic-ref", "--short", "HEAD").strip()
            if self._branch and self._branch != current:
                raise NotUsable(
                    f"The branch {current} is checked out in {repository}, not {self._branch}.",
                    "Check it out, or name that branch.",
                    repository,
                )
            self._branch = current
            with self._locked():
                self._pull()

    # --- history.Store ---

    def names(self) -> list[str]:
        return self._files().names()

    def load(self, name: str) -> t.Any:
        return self._files().load(name)

    def add(
        self, texts: t.Mapping[str, str], now: float, keep: int, keep_days: float | None
    ) -> dict[str, str]:
        stem = f"maintenance-{history.stamp(now)}-{secrets.randbelow(10**9) + 1}"
        directory = self._directory()
        with self._locked():
            os.makedirs(directory, exist_ok=True)
            names = []
            for kind, text in texts.items():
                names.append(f"{stem}.{kind}")
                path = os.path.join(directory, names[-1])
                atomic_write(path, text.encode("utf-8", "replace"), mode=0o640)
            self._commit(directory, names, f"Add the run {stem}")
            for attempt in range(ATTEMPTS):
                if self._push(last=attempt == ATTEMPTS - 1):
                    break
                self._pull()
            self._prune(directory, stem, keep, keep_days, now)
        top = f"{self.place.partition('#')[0]}#{self._branch}:{self._below}".rstrip(":")
        between = ":"
        if self._below:
            between = "/"
        return {kind: f"{top}{between}{stem}.{kind}" for kind in texts}

    # --- parts ---

    def _files(self) -> history.Directory:
        return history.Directory(self._directory())

    def _directory(self) -> str:
        """Return the directory of the runs.

        :raises NotUsable: a link leads out of the repository.
        """
        directory = os.path.join(self._tree, self._below)
        top, real = os.path.realpath(self._tree), os.path.realpath(directory)
        if os.path.commonpath([top, real]) != top:
            raise NotUsable(
                f"The directory {self._below} of {self.place} is a link out of the repository.",
                "Name another directory.",
                self.place,
            )
        return directory

    @contextlib.contextmanager
    def _locked(self) -> t.Iterator[None]:
        """Keep other controllers on this machine away from a working tree that they share."""
        if self._cloned:
            yield
            return
        own = self._git("rev-parse", "--absolute-git-dir").rstrip("\n")
        with lock(
            os.path.join(own, "mlops-fleet.lock"), "writing the fleet report", history.LOCK_WAIT
        ):
            yield

    def _clone(self, repository: str) -> str:
        # Removed with this object, or with Ansible's own temporary directory: its workers end
        # without clearing up.
        self._temporary = tempfile.TemporaryDirectory(
            prefix="mlops-fleet-history-", dir=constants.DEFAULT_LOCAL_TMP
        )
        tree = self._temporary.name
        self._tree = tree
        if "://" not in repository and os.path.isdir(repository):
            repository = os.path.abspath(repository)
        self._git("init", "--quiet")
        self._git("remote", "add", "--", "origin", repository)
        heads = self._git("ls-remote", "--symref", "origin", "HEAD", "refs/heads/*")
        if not self._branch:
            default = re.search(r"^ref: refs/heads/(\S+)\tHEAD$", heads, re.MULTILINE)
            self._branch = default[1] if default else "main"
        if f"refs/heads/{self._branch}\n" in heads:
            self._fetch("--depth=1")
            self._git(
                "checkout", "--quiet", "-B", self._branch, "--track", f"origin/{self._branch}"
            )
        else:
            self._git("symbolic-ref", "HEAD", f"refs/heads/{self._branch}")
        return tree

    def _fetch(self, *options: str) -> None:
        branch = self._branch
        self._git("fetch", "--quiet", *options, "origin", f"+refs/heads/{branch}:{_REMOTE}{branch}")

    def _pull(self) -> None:
        """Put own commits on top of what others pushed."""
        if self._cloned:
            self._fetch()
            self._git("rebase", "--quiet", f"origin/{self._branch}")
        elif self._upstream():
            self._git("pull", "--quiet", "--rebase", "--autostash")

    def _upstream(self) -> bool:
        return bool(self._git("config", "--get", f"branch.{self._branch}.merge", accept=(0, 1)))

    def _push(self, last: bool) -> bool:
        """Push; return whether that is done. :raises StoreError: it failed for good."""
        if not self._cloned and not self._upstream():
            return True
        target = ("origin", f"HEAD:refs/heads/{self._branch}") if self._cloned else ()
        try:
            self._git("push", "--quiet", *target)
        except StoreError as error:
            if last or not _REJECTED.search(str(error.__cause__ or error.message)):
                raise
            return False
        return True

    def _commit(self, directory: str, names: t.Sequence[str], message: str) -> None:
        paths = [os.path.join(directory, name) for name in names]
        self._git("add", "--all", "--force", "--", *paths)
        self._git("commit", "--quiet", "--no-verify", "--message", message, "--only", "--", *paths)

    def _prune(
        self, directory: str, stem: str, keep: int, keep_days: float | None, now: float
    ) -> None:
        """Remove old runs with a commit of its own.

        Where another controller is faster, it removed them.
        """
        names = os.listdir(directory)
        old = history.files_of(names, history.outdated(names, stem, keep, keep_days, now))
        if not old:
            return
        for name in old:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(directory, name))
        runs = len(history.stems_of(old))
        self._commit(directory, old, f"Remove {runs} old run{'s' if runs > 1 else ''}")
        if not self._push_quietly():
            self._git("reset", "--quiet", "--keep", "HEAD~1")

    def _push_quietly(self) -> bool:
        try:
            return self._push(last=False)
        except StoreError:
            return False

    def _git(self, *arguments: str, accept: t.Sequence[int] = (0,)) -> str:
        """Run git in the working tree; return what it printed. :raises StoreError: it failed."""
        author = self._identity() if arguments[0] in ("commit", "rebase", "pull") else []
        command = ["git", "-C", self._tree, "-c", "commit.gpgSign=false", *author]
        env = {key: value for key, value in os.environ.items() if key not in _ELSEWHERE}
        env.update(LC_ALL="C", GIT_TERMINAL_PROMPT="0", GIT_EDITOR="true")
        try:
            # In a session of its own, so that ssh finds no terminal to ask for a password.
            process = subprocess.run(
                [*command, *arguments],
                env=env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT,
                check=False,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise NotUsable(
                "The program git, which keeps the history, is not installed.",
                "Install git on the controller, or in the execution environment.",
            ) from None
        except subprocess.TimeoutExpired:
            raise self._failure(arguments[0], f"no answer for {TIMEOUT:g} s") from None
        if process.returncode not in accept:
            raise self._failure(
                arguments[0], process.stderr.strip() or f"exit {process.returncode}"
            )
        return process.stdout

    def _failure(self, what: str, output: str) -> StoreError:
        if self._secret:
            output = output.replace(self._secret, "***")
        return StoreError(
            f"git {what} for {self.place} failed: {clean(output, 600).rstrip('.')}.",
            "Check the URL, and the credentials of the user who runs ansible-playbook.",
            self.place,
        )

    def _identity(self) -> list[str]:
        """Return options with an author, unless the user has configured one."""
        if self._author is None:
            self._author = []
            if not self._git("config", "--get", "user.email", accept=(0, 1)).strip():
                email = f"mlops.fleet@{socket.gethostname() or 'controller'}"
                self._author = ["-c", "user.name=mlops.fleet", "-c", f"user.email={email}"]
        return self._author
