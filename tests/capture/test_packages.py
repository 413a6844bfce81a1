"""Imported distributions, with hand-made installations; real ones are tried in tests/frameworks."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from keepsake.capture.packages import imported_packages


class Site:
    """A directory on ``sys.path`` with distributions in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()

    def install(
        self,
        name: str,
        version: str = "1.0",
        files: Sequence[str] = (),
        *,
        top_level: str | None = None,
        metadata: str | None = None,
        record: bool = True,
        **further: str,
    ) -> Path:
        """Write a distribution's files and its metadata."""
        for file in files:
            self.write(file)
        info = f"{name.replace('-', '_')}-{version}.dist-info"
        self.write(f"{info}/METADATA", metadata if metadata is not None else f"Name: {name}\nVersion: {version}\n")
        if record:
            self.write(f"{info}/RECORD", "".join(f"{file},sha256=x,1\n" for file in [*files, f"{info}/METADATA"]))
        if top_level is not None:
            self.write(f"{info}/top_level.txt", top_level)
        for file, text in further.items():
            self.write(f"{info}/{file}.json", text)
        return self.path / info

    def write(self, name: str, text: str = "") -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def imported_after(self, *statements: str, path: Sequence[Path] = ()) -> dict[str, str]:
        """Return what a process finds that has only this directory and the standard library, in the order it finds it."""
        root = str(Path(__file__).resolve().parents[2])
        code = "\n".join(
            [
                "import sys",
                # Of what is installed here nothing must be seen; keepsake itself comes last, for this one module.
                f"first, last = {[str(self.path), *map(str, path)]}, {[root]}",
                "sys.path = first + [p for p in sys.path if 'site-packages' not in p] + last",
                *statements,
                "import json; from keepsake.capture.packages import imported_packages",
                "print(json.dumps(imported_packages()))",
            ]
        )
        done = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
        found: dict[str, str] = json.loads(done.stdout)
        return found


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def test_distributions_are_named_as_they_are_installed_and_not_as_they_are_imported(site: Site) -> None:
    site.install("scikit-learn", "1.8.0", ["sklearn/__init__.py"], top_level="sklearn\n")
    site.install("PyYAML", "6.0", ["yaml/__init__.py", "_yaml/__init__.py"])
    site.install("Pillow", "11.0", ["PIL/__init__.py", "PIL/Image.py"])
    site.install("six", "1.17", ["six.py"])
    site.install("unused", "1.0", ["unused/__init__.py"])
    found = site.imported_after("import sklearn, yaml, PIL.Image, six")
    assert list(found.items()) == [("Pillow", "11.0"), ("PyYAML", "6.0"), ("scikit-learn", "1.8.0"), ("six", "1.17")]


def test_compiled_modules_count(site: Site) -> None:
    site.install("fast", "1.0", ["_fast.cpython-311-x86_64-linux-gnu.so", "fast.py"])
    assert site.imported_after("import fast") == {"fast": "1.0"}


def test_data_in_the_directory_of_another_distribution_is_no_module(site: Site) -> None:
    site.install("model", "1.0", ["model/__init__.py"])
    site.install("model-data", "1.0", ["model/weights.json", "model.json", "../../bin/model.py"])
    assert site.imported_after("import model") == {"model": "1.0"}


def test_of_a_namespace_only_what_is_imported_counts(site: Site) -> None:
    site.install("google-auth", "2.0", ["google/auth/__init__.py"], top_level="google\n")
    site.install("protobuf", "5.0", ["google/protobuf/__init__.py", "google/protobuf/message.py"])
    site.install("google-cloud-storage", "3.0", ["google/cloud/storage/__init__.py", "google/cloud/storage/blob.py"])
    assert site.imported_after("import google.auth") == {"google-auth": "2.0"}
    assert site.imported_after("import google.protobuf.message, google.cloud.storage") == {
        "google-cloud-storage": "3.0",
        "protobuf": "5.0",
    }


def test_a_module_of_the_same_name_elsewhere_is_not_that_distribution(site: Site, tmp_path: Path) -> None:
    site.install("badly-packaged", "1.0", ["tests/__init__.py", "badly/__init__.py"])
    mine = tmp_path / "mine"
    (mine / "tests").mkdir(parents=True)
    (mine / "tests" / "__init__.py").write_text("", encoding="utf-8")
    assert site.imported_after(f"sys.path.insert(0, {str(mine)!r})", "import tests") == {}


def test_editable_installations_count(site: Site, tmp_path: Path) -> None:
    source = tmp_path / "my project" / "src"
    (source / "mine").mkdir(parents=True)
    (source / "mine" / "__init__.py").write_text("", encoding="utf-8")
    origin = json.dumps({"url": source.parent.as_uri(), "dir_info": {"editable": True}})
    site.install("mine", "0.1.dev0", ["__editable__.mine.pth"], direct_url=origin)
    assert site.imported_after("import mine", path=[source]) == {"mine": "0.1.dev0"}
    assert site.imported_after("pass", path=[source]) == {}


def test_one_installed_from_a_local_wheel_is_not_editable(site: Site, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    origin = json.dumps({"url": (tmp_path / "wheels" / "a.whl").as_uri(), "archive_info": {}})
    site.install("a", "1.0", ["a.py"], direct_url=origin)
    assert site.imported_after("import a") == {"a": "1.0"}


def test_a_site_directory_behind_a_link_is_known(site: Site, tmp_path: Path) -> None:
    site.install("six", "1.17", ["six.py"])
    (tmp_path / "link").symlink_to(site.path)
    code = ["import six", f"sys.path[0] = {str(tmp_path / 'link')!r}"]
    assert site.imported_after(*code) == {"six": "1.17"}


def test_the_first_of_two_installations_counts(site: Site, tmp_path: Path) -> None:
    other = Site(tmp_path / "other")
    site.install("six", "1.17", ["six.py"])
    other.install("six", "1.10", ["six.py"])
    assert site.imported_after("import six", path=[other.path]) == {"six": "1.17"}


def test_broken_metadata_does_not_hide_the_others(site: Site) -> None:
    site.install("six", "1.17", ["six.py"])
    site.install("nameless", "1.0", ["nameless.py"], metadata="Summary: nothing\n")
    site.install("empty", "1.0", ["empty.py"], metadata="")
    site.install("recordless", "1.0", ["recordless.py"], record=False)
    site.install("crooked", "1.0", ["crooked.py"], direct_url="{not json")
    (site.install("binary", "1.0", ["binary.py"]) / "RECORD").write_bytes(b"\xff\xfe\x00")
    (site.install("gone", "1.0", ["gone.py"]) / "METADATA").unlink()
    (site.path / "nothing-1.0.dist-info").mkdir()
    (site.path / "file-1.0.dist-info").write_text("", encoding="utf-8")
    (site.path / "~orn-1.0.dist-info").mkdir()
    imports = "import six, nameless, empty, recordless, crooked, binary, gone"
    found = site.imported_after(imports)
    assert found.pop("crooked", "1.0") == "1.0"
    assert found == {"six": "1.17"}


def test_strange_objects_among_the_modules_are_no_matter(site: Site) -> None:
    site.install("six", "1.17", ["six.py"])
    code = """
class Strange:
    __file__ = 5
    def __getattr__(self, name): raise RuntimeError(name)
sys.modules["strange"], sys.modules["nothing"] = Strange(), None
"""
    assert site.imported_after("import six", code) == {"six": "1.17"}


def test_this_process_has_imported_what_runs_it() -> None:
    found = imported_packages()
    assert {"pytest", "hypothesis"} <= set(found)
    assert found["pytest"] == pytest.__version__
