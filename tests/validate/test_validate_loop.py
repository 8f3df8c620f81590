"""The closed loop against a plain transcription of its rules, and what must hold for any load."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infermix.validate.loop import Curve, Rules, Times, run_loop
from infermix.validate.meaning import Case, case_of
from infermix.validate.outcome import balanced_steps
from tests.nightly import examples
from tests.validate.rows_for import row


def plain(curve: Curve, rules: Rules, clients: int, inputs: list[int], outputs: list[int]) -> Times:
    """One step after another, every request an object of its own."""
    n = len(inputs)
    needs = [a + int(np.ceil(rules.reserved * b)) for a, b in zip(inputs, outputs, strict=True)]
    sent, first, last = [0.0] * n, [0.0] * n, [0.0] * n
    waiting, reading, decoding = list(range(min(clients, n))), [], {}
    unsent, part, now = list(range(min(clients, n), n)), dict.fromkeys(range(n), 0), 0.0
    while waiting or reading or decoding:
        running = len(reading) + len(decoding)
        held = sum(needs[i] for i in [*reading, *decoding])
        while waiting and running < rules.max_seqs:
            need = needs[waiting[0]]
            if running and held + need > rules.kv_tokens:
                break
            reading.append(waiting.pop(0))
            running, held = running + 1, held + need
        decodes = list(decoding) if rules.mixed or not reading else []
        budget, length, ends, pairs, pieces, read = max(1, rules.chunk_tokens - len(decodes)), 0, 0, 0.0, 0, []
        for i in reading:
            if length >= budget:
                break
            take = min(inputs[i] - part[i], budget - length)
            pairs += sum(part[i] + k + 1 for k in range(take))
            part[i] += take
            length, ends, pieces = length + take, ends + part[i], pieces + 1
            if part[i] == inputs[i]:
                read.append(i)
        base = curve.mixed_s if length else curve.decode_s
        contexts = sum(inputs[i] + 1 + decoding[i] * curve.tokens_per_step for i in decodes)
        now += float(np.interp(len(decodes) + length, curve.tokens, base)) + curve.per_seq_s * (len(decodes) + pieces)
        now += curve.kv_s * (contexts + ends) + curve.pair_s * pairs
        ended = []
        for i in decodes:
            decoding[i] += 1
            if decoding[i] >= np.ceil((outputs[i] - 1) / curve.tokens_per_step):
                del decoding[i]
                ended.append(i)
        for i in read:
            reading.remove(i)
            first[i] = now
            if outputs[i] > 1:
                decoding[i] = 0
            else:
                ended.append(i)
        for i in ended:
            last[i] = now
            if unsent:
                sent[unsent[0]] = now
                waiting.append(unsent.pop(0))
    return Times(np.array(sent), np.array(first), np.array(last))


def curve(kept: float = 1.0) -> Curve:
    tokens = np.array([1.0, 4.0, 64.0, 4096.0])
    return Curve(tokens, 1e-3 + 1e-6 * tokens, 2e-3 + 2e-6 * tokens, 1e-5, 1e-8, 1e-9, kept)


LENGTHS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 20)), min_size=1, max_size=25)


@settings(deadline=None, max_examples=examples(150))
@given(LENGTHS, st.integers(1, 8), st.booleans(), st.integers(1, 64), st.integers(1, 6), st.integers(1, 400),
       st.sampled_from([1.0, 1.8]), st.sampled_from([1.0, 0.5]))  # fmt: skip
def test_loop_is_what_its_rules_say(
    lengths: list[tuple[int, int]],
    clients: int,
    mixed: bool,
    chunk: int,
    seqs: int,
    room: int,
    kept: float,
    reserved: float,
) -> None:
    inputs, outputs = [a for a, _ in lengths], [b for _, b in lengths]
    rules = Rules(mixed, chunk, seqs, float(room), reserved)
    mine = run_loop(curve(kept), rules, clients, np.array(inputs), np.array(outputs))
    twin = plain(curve(kept), rules, clients, inputs, outputs)
    for a, b in zip(mine, twin, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


@pytest.mark.parametrize("mixed", [True, False])
def test_more_clients_wait_no_shorter_and_get_no_less_done(mixed: bool) -> None:
    inputs, outputs = np.full(200, 500), np.full(200, 40)
    spans, waits = [], []
    for clients in (1, 2, 4, 8, 16, 32):
        times = run_loop(curve(), Rules(mixed, 512, 256, 1e9), clients, inputs, outputs)
        spans.append(times.last.max())
        waits.append(float(np.mean(times.first - times.sent)))
    assert (np.diff(spans) <= 1e-12).all()
    assert waits[-1] > waits[0]


def test_one_client_alone_by_hand() -> None:
    """A prompt of 4 tokens, then two decode steps."""
    c = curve()
    times = run_loop(c, Rules(True, 64, 8, 1e9), 1, np.array([4]), np.array([3]))
    read = c.mixed_s[1] + c.per_seq_s + c.kv_s * 4 + c.pair_s * 10
    assert times.first[0] == pytest.approx(read)
    assert times.last[0] == pytest.approx(read + 2 * (c.decode_s[0] + c.per_seq_s) + c.kv_s * (5 + 6))


def data_parallel(clients: int, framework: str = "trtllm 1.1") -> Case:
    return case_of(
        row(model="DeepSeek-V3", framework=framework, chip="B200-SXM", tp=1, ep=8, dp=8, output_len=1024.0,
            batch_or_concurrency=str(clients))
    )  # fmt: skip


@pytest.mark.parametrize("clients", [2, 16, 64, 512])
def test_prompts_wait_for_the_other_groups_or_until_patience_ends(clients: int) -> None:
    """Against prompts that come at random, held back as the rule says."""
    case = data_parallel(clients)
    draws, waits = np.random.default_rng(1), []
    times = np.cumsum(draws.exponential(case.output_tokens / case.clients, 40_000)).tolist()
    while len(times) > case.deployment.dp:
        most = times[0] + case.engine.balanced_steps
        group = [t for t in times[: case.deployment.dp] if t <= most]
        leave = group[-1] if len(group) == case.deployment.dp else most
        waits += [leave - t for t in group]
        times = times[len(group) :]
    assert balanced_steps(case) == pytest.approx(np.mean(waits), rel=0.1)


def test_one_group_alone_waits_for_nobody() -> None:
    assert balanced_steps(case_of(row(framework="trtllm 1.1"))) == 0
    assert balanced_steps(data_parallel(64, "sglang 0.5")) == 0
