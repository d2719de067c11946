import json
import math
import re

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from essaylib import claims, glue, paths, power
from essaylib.claims import Test, decide, holm
from essaylib.errors import EssayError

STATISTIC = {
    "id": "premium",
    "statistic": "A difference.",
    "null_hypothesis": "Exchange.",
    "delta": 0.05,
    "why": "Visible.",
    "interval": "Bootstrap.",
    "unit": "prompts",
    "n": 80,
    "power": {},
}


def entry(id, *statistics, **more):
    texts = dict.fromkeys(["chapter", "sentence", "against", "control", "limits"], "text")
    primary = [STATISTIC | {"id": name} for name in statistics]
    return {"id": id, **texts, "primary": primary, **more}


def write(root, *entries, **more):
    document = {"alpha": 0.05, "permutations": 10000, "seeds": {"verdict_from": 10000}} | more
    path = root / "book" / "claims.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(document | {"claims": list(entries)}))
    return path


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository with two claims, one of them with two statistics."""
    (tmp_path / "_toc.yml").touch()
    monkeypatch.setenv("ESSAY_ROOT", str(tmp_path))
    monkeypatch.setattr(glue, "_current", None)
    write(tmp_path, entry("guidance", "premium"), entry("prompt-seed", "order", "static"))
    return tmp_path


def freeze(root):
    folder = root / "models" / "emoji-ldm"
    folder.mkdir(parents=True)
    (folder / "training.json").write_text('{"frozen": true}')


def test_holm_matches_a_hand_computation():
    # Sorted: .01 x 4, .02 x 3, .03 x 2 (the same .06), .5 x 1.
    adjusted = holm({"a": 0.02, "b": 0.5, "c": 0.01, "d": 0.03})
    assert adjusted == pytest.approx({"c": 0.04, "a": 0.06, "d": 0.06, "b": 0.5})


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=20))
def test_holm_lies_between_p_and_bonferroni_and_keeps_the_order(p):
    adjusted = holm(dict(enumerate(p)))
    for i, value in enumerate(p):
        assert value <= adjusted[i] <= min(1, len(p) * value) + 1e-12
        for j, other in enumerate(p):
            assert value > other or adjusted[i] <= adjusted[j]


@given(st.lists(st.floats(1e-4, 1), min_size=2, max_size=12))
def test_holm_rejects_what_the_step_down_procedure_rejects(p):
    rejected, alpha = set(), 0.05
    for step, i in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[i] * (len(p) - step) > alpha:
            break
        rejected.add(i)
    assert {i for i, value in holm(dict(enumerate(p))).items() if value <= alpha} == rejected


@pytest.mark.parametrize(
    "interval, p, control_ok, word",
    [
        ((0.06, 0.20), 0.001, True, "supported"),
        ((0.06, 0.20), 0.03, True, "undecided"),  # 0.03 x 3 is above 0.05
        ((0.05, 0.20), 0.001, True, "undecided"),  # touches delta
        ((0.01, 0.20), 0.001, True, "undecided"),
        ((0.01, 0.04), 0.001, True, "contradicted"),
        ((-0.2, -0.1), 1.0, True, "contradicted"),
        ((0.06, 0.20), 0.001, False, "untestable"),
    ],
)
def test_every_branch_of_the_rule(root, interval, p, control_ok, word):
    test = Test(sum(interval) / 2, *interval, p, 80)
    assert decide(claims.load()["guidance"], {"premium": test}, control_ok).verdict == word


def test_numbers_of_numpy_are_recorded_as_json_knows_them(root):
    test = Test(np.float64(0.2), 0.1, 0.3, np.float32(0.001), np.int64(80))
    claims.record("guidance", test, control_ok=np.bool_(True), seed=np.int64(5))
    kept = claims.recorded()["guidance"]
    assert kept["control_ok"] is True and kept["seed"] == 5


def test_a_file_that_was_cut_off_is_named_with_its_cure(root):
    claims.record("guidance", Test(0.2, 0.1, 0.3, 0.001, 80), control_ok=True, seed=0)
    path = claims.path_of("guidance")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(EssayError, match="guidance.json is damaged.*essay run"):
        claims.recorded()


def test_two_statistics_that_differ_are_mixed(root):
    claim = claims.load()["prompt-seed"]
    good, bad = Test(0.2, 0.1, 0.3, 0.001, 80), Test(0.0, -0.1, 0.04, 0.5, 80)
    assert decide(claim, {"order": good, "static": good}, True).verdict == "supported"
    mixed = decide(claim, {"order": good, "static": bad}, True)
    assert [part.verdict for part in mixed.parts] == ["supported", "contradicted"]
    assert mixed.verdict == "mixed"
    assert decide(claim, {"order": good, "static": bad}, False).verdict == "untestable"


def test_known_p_of_other_claims_relax_the_correction(root):
    claim, test = claims.load()["guidance"], Test(0.2, 0.1, 0.3, 0.03, 80)
    others = {("prompt-seed", "order"): 1e-4, ("prompt-seed", "static"): 1e-4}
    assert decide(claim, {"premium": test}, True, others={}).verdict == "undecided"
    assert decide(claim, {"premium": test}, True, others=others).verdict == "supported"


@given(
    low=st.floats(-1, 1),
    width=st.floats(0, 1),
    p=st.floats(1e-4, 1),
    control_ok=st.booleans(),
)
def test_a_verdict_is_one_of_five_and_support_needs_everything(low, width, p, control_ok):
    claim = claims.load()["guidance"]
    delta = claim.statistic().delta
    found = decide(claim, {"premium": Test(low, low, low + width, p, 88)}, control_ok, others={})
    assert found.verdict in claims.VERDICTS
    assert (found.verdict == "supported") == (low > delta and p * 20 <= 0.05 and control_ok)


def test_a_changed_rule_is_listed_with_both_verdicts(root):
    old = {"date": "2026-12-01", "reason": "Too lax.", "primary": {"premium": {"delta": 0.01}}}
    write(root, entry("guidance", "premium", superseded=[old]))
    claim = claims.load()["guidance"]
    found = decide(claim, {"premium": Test(0.03, 0.02, 0.04, 1e-4, 80)}, True)
    assert found.verdict == "contradicted"
    assert [was for _, was in found.earlier] == ["supported"]
    assert "By the rule until 2026-12-01" in claims.to_html(found)


def test_a_redefined_statistic_needs_its_earlier_measurement(root):
    old = {"date": "2026-12-01", "reason": "Biased.", "primary": {"premium": {"statistic": "H."}}}
    write(root, entry("guidance", "premium", superseded=[old]))
    claim, test = claims.load()["guidance"], Test(0.2, 0.1, 0.3, 1e-4, 80)
    with pytest.raises(EssayError, match="earlier="):
        decide(claim, {"premium": test}, True)
    earlier = {"2026-12-01": {"premium": Test(0.0, -0.1, 0.02, 0.9, 80)}}
    found = decide(claim, {"premium": test}, True, earlier=earlier)
    assert (found.verdict, found.earlier[0][1]) == ("supported", "contradicted")


def test_record_writes_what_it_decided(root):
    test = Test(0.12, 0.06, 0.2, 1e-4, 80)
    verdict = claims.record("guidance", test, control_ok=True, seed=0, show=False)
    kept = json.loads((root / "_build" / "claims" / "guidance.json").read_text())
    assert kept["verdict"] == verdict.verdict == "supported"
    assert kept["parts"][0]["p_holm"] == pytest.approx(3e-4)
    assert kept["exploratory"] and "not yet frozen" in " ".join(kept["reasons"])
    assert claims.recorded() == {"guidance": kept}


def test_a_verdict_is_final_only_if_nothing_speaks_against_it(root):
    freeze(root)
    test = Test(0.12, 0.06, 0.2, 1e-4, 80)

    def reasons(test, seed):
        return claims.record("guidance", test, control_ok=True, seed=seed, show=False).reasons

    assert reasons(test, 10000) == ()
    assert reasons(test, None) == ()
    assert "seed 9999" in reasons(test, 9999)[0]
    assert "79 of the 80" in reasons(Test(0.12, 0.06, 0.2, 1e-4, 79), 10000)[0]
    assert reasons(Test(0.12, 0.06, 0.2, 1e-4, 71, drawn=80), 10000) == ()
    assert claims.seeds(3, first=2) == [10002, 10003, 10004]


def test_exploration_uses_the_readers_seeds(root):
    assert claims.seeds(3, first=2) == [2, 3, 4]


def test_another_model_is_kept_apart_and_exploratory(root):
    freeze(root)
    glue.chapter("guidance", model="some/where/sd15", seed=0)
    test = Test(0.12, 0.06, 0.2, 1e-4, 80)
    verdict = claims.record("guidance", test, control_ok=True, seed=10000, show=False)
    assert "embedded" in verdict.reasons[0]
    assert (root / "_build" / "claims" / "guidance@sd15.json").is_file()
    assert claims.recorded() == {}


def test_the_lock_takes_new_results_and_keeps_final_ones(root):
    def record(low, p):
        test = Test(low + 0.1, low, low + 0.2, p, 80)
        claims.record("guidance", test, control_ok=True, seed=10000, show=False)

    record(0.06, 0.01)
    assert claims.lock() == ["guidance"]
    assert claims.locked_p() == {("guidance", "premium"): 0.01}
    assert claims.locked_p(confirmed=True) == {}
    freeze(root)
    record(0.07, 0.002)
    assert claims.lock() == ["guidance"]
    assert claims.lock() == []
    assert claims.locked_p(confirmed=True) == {("guidance", "premium"): 0.002}
    record(0.08, 0.002)
    with pytest.raises(EssayError, match="superseded"):
        claims.lock()


def test_final_verdicts_ignore_exploratory_p(root):
    good = Test(0.12, 0.06, 0.2, 1e-4, 80)
    claims.record("prompt-seed", {"order": good, "static": good}, control_ok=True, seed=0)
    claims.lock()
    weak = Test(0.12, 0.06, 0.2, 0.03, 80)
    assert claims.record("guidance", weak, control_ok=True, seed=0).verdict == "supported"
    freeze(root)
    assert claims.record("guidance", weak, control_ok=True, seed=10000).verdict == "undecided"


def test_a_claim_without_a_test_is_untestable_and_says_why(root):
    write(root, entry("unmeasured", no_test="There is no reader in the corpus."))
    verdict = claims.record("unmeasured", control_ok=False, seed=None, show=False)
    assert verdict.verdict == "untestable" and not verdict.exploratory
    assert "There is no reader" in claims.to_html(verdict)
    assert claims.load().family == ()


def test_the_block_looks_the_same_whatever_it_says(root):
    claim = claims.load()["guidance"]
    blocks = [
        claims.to_html(decide(claim, {"premium": Test(m, m, m, 1e-4, 80)}, ok))
        for m, ok in ((0.2, True), (0.0, True), (0.2, False))
    ]
    styles = [re.findall(r'style="[^"]*"', block) for block in blocks]
    assert styles[0] == styles[1] == styles[2]
    assert not any("font-size" in style or "color:" in style for style in styles[0])
    assert "<strong>Verdict: contradicted</strong>" in blocks[1]


def test_html_escapes_what_it_is_given(root):
    claim = claims.load()["guidance"]
    test = {"premium": Test(0.2, 0.1, 0.3, 1e-4, 80)}
    block = claims.to_html(decide(claim, test, True, control_note="<b>5 < 6</b>"))
    assert "&lt;b&gt;5 &lt; 6" in block


@pytest.mark.parametrize(
    "numbers, message",
    [
        ((math.nan, 0, 1, 0.5), "finite"),
        ((0, 1, 0, 0.5), "ends before it begins"),
        ((0, 0, 1, 0.0), "counts? the observed"),
        ((0, 0, 1, 1.5), "lies in"),
    ],
)
def test_impossible_results_are_refused(numbers, message):
    with pytest.raises(EssayError, match=message):
        Test(*numbers, 10)


def test_the_wrong_statistic_is_refused(root):
    test = Test(0.2, 0.1, 0.3, 1e-4, 80)
    with pytest.raises(EssayError, match="tested by order, static"):
        decide(claims.load()["prompt-seed"], {"order": test}, True)
    with pytest.raises(EssayError, match="name one"):
        claims.record("prompt-seed", test, control_ok=True, seed=0)
    with pytest.raises(EssayError, match="no claim 'gidance'"):
        claims.record("gidance", test, control_ok=True, seed=0)


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda e: e["primary"][0].pop("delta"), "lacks .'delta'"),
        (lambda e: e["primary"][0].update(delta=-1), "`delta` must be a number above zero"),
        (lambda e: e["primary"][0].update(delta=True), "`delta` must be a number above zero"),
        (lambda e: e["primary"][0].update(n="many"), "`n` must be a number"),
        (lambda e: e["primary"][0].update(nul="x"), "unknown keys .'nul'"),
        (lambda e: e["primary"].append(dict(e["primary"][0])), "'premium' is used twice"),
        (lambda e: e.update(sentence="  "), "`sentence` must be a sentence"),
        (lambda e: e.update(id="Guidance!"), "an id is lower-case"),
        (lambda e: e.update(primary=[]), "`no_test` with the reason"),
        (lambda e: e.update(no_test="none"), "`no_test` with the reason"),
        (
            lambda e: e.update(superseded=[{"date": "d", "reason": "r", "primary": {"x": {}}}]),
            "no primary statistic 'x'",
        ),
    ],
)
def test_a_damaged_file_names_the_claim_and_the_key(root, damage, message):
    broken = entry("guidance", "premium")
    damage(broken)
    write(root, broken)
    with pytest.raises(EssayError, match=message):
        claims.load()


def test_a_file_that_is_no_yaml_or_missing_is_refused(root):
    path = root / "book" / "claims.yml"
    path.write_text("claims: [")
    with pytest.raises(EssayError, match="not valid YAML"):
        claims.load()
    path.unlink()
    with pytest.raises(EssayError, match="git checkout"):
        claims.load()


def test_too_few_permutations_are_refused(root):
    write(root, entry("guidance", "premium"), permutations=999)
    with pytest.raises(EssayError, match="at least 2000"):
        claims.load()


def test_the_command_lists_verdicts_and_locks_them(root):
    from typer.testing import CliRunner

    from essaylib.cli import app

    claims.record("guidance", Test(0.12, 0.06, 0.2, 1e-4, 80), control_ok=True, seed=0, show=False)
    result = CliRunner().invoke(app, ["claims", "--lock"])
    assert result.exit_code == 0, result.output
    assert "Locked anew: guidance." in result.output
    assert "supported (exploratory)" in result.output and "not computed" in result.output
    assert claims.read_lock()["guidance"]["tests"]["premium"]["p"] == 1e-4


# What is registered in the book.


def test_the_book_registers_eighteen_claims_and_twenty_statistics():
    registered = claims.load()
    assert len(registered) == 18
    assert len(registered.family) == power.FAMILY
    assert [claim.id for claim in registered if claim.no_test] == ["unmeasured"]


@pytest.mark.parametrize(
    "statistic",
    [s for claim in claims.load() for s in claim.primary],
    ids=[f"{c}-{s}" for c, s in claims.load().family],
)
def test_registered_samples_follow_from_their_assumptions(statistic):
    assumed = {k: v for k, v in statistic.power.items() if k in ("design", "effect", "sd")}
    needs = power.sample_size(delta=statistic.delta, **assumed)
    assert needs == statistic.power["needs"] <= statistic.n


def test_registered_standard_deviations_follow_from_their_simulations():
    guidance = claims.load()["guidance"].statistic()
    assert guidance.power["sd_from"] == "concentration_sd(8, 0.5, 0.2)"
    mean, sd = power.concentration_sd(8, 0.5, 0.2)
    assert (mean, sd) == pytest.approx((guidance.power["effect"], guidance.power["sd"]), abs=1e-3)
    order = claims.load()["prompt-seed"].statistic("order")
    assert order.power["sd_from"] == "crossed_sd(48, 16, 0.4, 0.15)"
    assert power.crossed_sd(48, 16, 0.4, 0.15) * math.sqrt(48) <= order.power["sd"]


def test_the_lock_names_registered_statistics_only():
    assert set(claims.locked_p()) <= set(claims.load().family)
    assert (paths.book() / "claims.lock.json").is_file()
