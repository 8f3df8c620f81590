"""The store of capacities: what was written is read, what is corrupt is found anew, what differs has another name."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from infermix.plan import capacity
from infermix.plan.cache import Store, digest, user_store
from infermix.plan.capacity import Capacities
from infermix.plan.options import Option
from infermix.plan.question import Demand, ask
from tests.plan.questions import CHAT, offer, option, study


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "LEAST", 200)
    monkeypatch.setattr(capacity, "HORIZON_S", 5.0)
    monkeypatch.setattr(capacity, "BISECTIONS", 3)


@pytest.fixture
def asked() -> tuple[Option, Demand]:
    return option(offer("h100-x1", 1.0)), ask(study()).demands[0]


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert store.read("ab12") is None
    store.write("ab12", 1.25)
    assert store.read("ab12") == 1.25
    assert [path.name for path in entries(tmp_path)] == ["ab12"]


@pytest.mark.parametrize("text", ["", "1.25", "2.5 0123456789abcdef", "nan x", "\x00\x01", "1.25 a b", "-1.0 b"])
def test_a_corrupt_entry_is_ignored_and_written_anew(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    store.write("ab12", 1.25)
    (tmp_path / "ab" / "ab12").write_text(text, encoding="latin-1")
    assert store.read("ab12") is None
    store.write("ab12", 1.5)
    assert store.read("ab12") == 1.5


def test_an_entry_of_another_key_is_ignored(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.write("ab12", 1.25)
    (tmp_path / "ab" / "ab13").write_bytes((tmp_path / "ab" / "ab12").read_bytes())
    assert store.read("ab13") is None


def test_a_folder_that_cannot_be_written_is_no_reason_to_stop(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="ascii")
    store = Store(tmp_path / "file")
    store.write("ab12", 1.0)
    assert store.read("ab12") is None
    assert Store(None).read("ab12") is None


def test_the_store_lies_in_the_user_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert user_store().folder == tmp_path / "infermix" / "capacities"


def test_capacities_come_back_and_are_not_simulated_again(
    tmp_path: Path, asked: tuple[Option, Demand], monkeypatch: pytest.MonkeyPatch
) -> None:
    of, demand = asked
    found = Capacities(Store(tmp_path)).simulate(of, demand, 1)
    assert found == Capacities().simulate(of, demand, 1) > 0
    assert len(entries(tmp_path)) == 1
    monkeypatch.setattr(capacity, "simulate_pools", None)
    assert Capacities(Store(tmp_path)).simulate(of, demand, 1) == found
    entries(tmp_path)[0].write_bytes(b"\xff\xfe")
    with pytest.raises(TypeError):
        Capacities(Store(tmp_path)).simulate(of, demand, 1)


def test_everything_that_a_capacity_hangs_on_is_in_its_name(asked: tuple[Option, Demand]) -> None:
    of, demand = asked
    tighter = {**CHAT, "slo": {**CHAT["slo"], "tpot_s": 0.04}}
    longer = {**CHAT, "profile": "azure-code-2023"}
    others = [ask(study(traffic={"chat": row})).demands[0] for row in (tighter, longer)]
    slower = msgspec.structs.replace(of.deployment, max_num_seqs=32)
    names = [capacity._key(of, demand, 1), capacity._key(of, demand, 2)]
    names += [capacity._key(of, other, 1) for other in others]
    names.append(capacity._key(option(offer("h100-x1", 1.0), max_num_seqs=slower.max_num_seqs), demand, 1))
    names.append(capacity._key(option(offer("l40s-x1", 1.0)), demand, 1))
    assert len(set(names)) == len(names)
    again = ask(study()).demands[0]
    assert capacity._key(option(offer("h100-x1", 7.0)), again, 1) == names[0], "a price is no part of a capacity"


def test_digests_tell_parts_apart() -> None:
    assert digest("a", "b") != digest("ab") != digest("a", b"b")
    assert digest(1.0, (2,)) == digest(1.0, (2,))
