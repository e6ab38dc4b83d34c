"""Why a Batch pod is held back for somebody's sake; how an online pod is: every sign with what is usual."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from nodeagent.core.explain.ground import Ground
from nodeagent.core.explain.law import Given, Unit, reason
from nodeagent.core.interference.cpus import CpusOf
from nodeagent.core.interference.cusum import Z_CLIP, z_score
from nodeagent.core.interference.learn import usual_of
from nodeagent.core.interference.measures import Measures, measured
from nodeagent.core.interference.signs import RULES
from nodeagent.model.explanation import Input, Reason
from nodeagent.model.interference import Episode, Restraint, Trial
from nodeagent.model.interference_told import (
    antagonists,
    done,
    evidence,
    named,
    restrained,
    score,
    shown,
    step,
    worst,
)
from nodeagent.model.pod import PodSpec, Qos
from nodeagent.model.senses import Feeling, PodSense, Usual
from nodeagent.model.symptom import Sign

BY = "interference"
LADDER = "the gentlest step that touches the resource; a harsher one while the victim stays slowed"
DEVIATION = "max(-clip, min(clip, (value - usual) / spread))"
ALARM = "alarm while the cumulative sum of deviations is at least interference.cusum_h"
COLD = "bad from its limit on, for nobody knows yet what is usual"


def reasons(ground: Ground, spec: PodSpec) -> Iterator[Reason]:
    """Of a Batch pod what it is held to; of another one its trouble, all its signs, and those that alarm."""
    if spec.qos is Qos.BATCH:
        yield from _held(ground, spec)
        return
    yield from _slowed(ground, spec)
    if not ground.policy.interference.detect:
        yield Reason(name="signs", result="not looked at", by=BY, why="policy: interference.detect is false")
        return
    sense = ground.thought.felt.senses.pods.get(spec.uid)
    yield _signs(ground, spec, sense)
    yield from _alarms(ground, spec, sense)


def _held(ground: Ground, spec: PodSpec) -> Iterator[Reason]:
    found = ground.thought.interference
    of = {each.id: each for each in found.episodes}
    for each in found.restraints:
        if each.cgroup == spec.cgroup:
            yield _restraint(ground, each, of.get(each.episode))


def _restraint(ground: Ground, each: Restraint, episode: Episode | None) -> Reason:
    left_s = max(0.0, each.until - ground.tick.snapshot.at)
    given = [
        Input(
            "step", step(each.rung), f"at most interference.top_rung = {ground.policy.interference.top_rung}"
        ),
        Input("lease_left", f"{left_s:.1f} s", "renewed while it is needed, else it ends by itself"),
    ]
    if episode is not None:
        given = [*_trouble(episode), *_trial(episode, each.uid), *given]
    return Reason(
        name=f"restraint {each.cgroup}",
        rule=LADDER,
        inputs=tuple(given),
        result=restrained(each),
        by=BY,
        why=each.why,
    )


def _trouble(episode: Episode) -> Iterator[Input]:
    yield Input("victim", episode.victim_name, f"episode {episode.id}, {episode.state.value}")
    yield Input("resource", episode.channel.value, "what is contended for")
    for alarm in worst(episode.evidence):
        yield Input(alarm.sign, shown(alarm.sign, alarm.value), f"at its worst: {evidence(alarm)}")


def _trial(episode: Episode, uid: str) -> Iterator[Input]:
    for each in (t for t in episode.trials if t.uid == uid):
        yield Input("trial", each.result.value, _compared(each))


def _compared(trial: Trial) -> str:
    if trial.during is None:
        return f"{trial.sign} of the victim is compared with what it was before"
    before, during = shown(trial.sign, trial.before), shown(trial.sign, trial.during)
    return f"{trial.sign} of the victim was {before} above what is usual before, {during} during it"


def _slowed(ground: Ground, spec: PodSpec) -> Iterator[Reason]:
    for each in ground.thought.interference.episodes:
        if each.victim != spec.uid:
            continue
        who = antagonists(each)
        given = [*_trouble(each)][1:]
        given += [Input("suspect", s.name, score(s)) for s in each.suspects]
        for trial in each.trials:
            given.append(
                Input("trial", f"{named(each, [trial.uid])}: {trial.result.value}", _compared(trial))
            )
        by_whom = f" by {named(each, who)}" if who else ", by nobody that could be named"
        yield Reason(
            name=f"episode {each.id}",
            rule="confirmed signs; a name only with significance; a cause only after a trial",
            inputs=tuple(given),
            result=f"{each.state.value}: slowed{by_whom}",
            by=BY,
            why="; ".join(filter(None, (done(each), each.held))),
        )


def _signs(ground: Ground, spec: PodSpec, sense: PodSense | None) -> Reason:
    """Each sign: its value or why there is none, and what is usual."""
    found = _measures(ground, spec)
    usual = _usual(ground, spec)
    given = tuple(Input(s.value, *_told(ground, found, s, usual.get(s), sense)) for s in Sign)
    known = sum(1 for s in Sign if found is not None and s in found.values)
    never = 0 if found is None else len(found.unsupported)
    verdict = "not judged yet" if sense is None else sense.verdict.state.value
    return Reason(
        name="signs",
        rule=ALARM,
        inputs=given,
        result=f"{verdict}: {known} known, {len(Sign) - known - never} not known now, {never} not supported",
        by=BY,
    )


def _told(
    ground: Ground, found: Measures | None, sign: Sign, usual: Usual | None, sense: PodSense | None
) -> tuple[str, str]:
    """Its value, and where it stands."""
    if found is not None and sign in found.unsupported:
        return "not supported", "this can never be known of this pod here"
    feeling = None if sense is None else sense.feelings.get(sign)
    parts = [_known(ground, sign, usual, sense)]
    if feeling is not None:
        parts.append(f"z {feeling.z:.1f}, sum {feeling.cusum:.1f}")
    elif sign not in RULES:
        parts = ["raises no alarm of its own"]
    value = None if found is None else found.values.get(sign)
    return "not known" if value is None else shown(sign, value), ", ".join(parts)


def _known(ground: Ground, sign: Sign, usual: Usual | None, sense: PodSense | None) -> str:
    if usual is not None:
        return f"usual {shown(sign, usual.median)} at this load"
    workload = None if sense is None else ground.thought.felt.senses.workloads.get(sense.workload)
    seen = workload.baselines if workload is not None else {}
    samples = sum(b.samples for key, b in seen.items() if key.partition("@")[0] == sign)
    return f"no baseline yet: {samples} of {ground.policy.interference.warm_samples} samples"


def _alarms(ground: Ground, spec: PodSpec, sense: PodSense | None) -> Iterator[Reason]:
    """How each sign that is not at rest stands, and what stopped it."""
    if sense is None:
        return
    usual = _usual(ground, spec)
    stopped = {r.alarm.sign: f"no accusation: {r.gate.value}: {r.why}" for r in sense.verdict.rejections}
    for sign, feeling in sorted(sense.feelings.items()):
        yield _deviation(ground, sign, feeling, usual.get(sign), stopped.get(sign, ""))


def _deviation(ground: Ground, sign: Sign, feeling: Feeling, usual: Usual | None, stopped: str) -> Reason:
    h = ground.policy.interference.cusum_h
    state = "alarm" if feeling.opened is not None else "no alarm"
    why = "; ".join(filter(None, (f"{state}: the sum is {feeling.cusum:.1f}, it takes {h:g}", stopped)))
    if usual is None or feeling.median is None or abs(z_score(feeling.value, usual) - feeling.z) > 1e-6:
        value = Input("value", shown(sign, feeling.value), "its last sample")
        rule = COLD if feeling.median is None else DEVIATION
        return Reason(
            name=f"sign {sign}", rule=rule, inputs=(value,), result=f"{feeling.z:.3g}", by=BY, why=why
        )
    given = (
        Given("value", feeling.value, f"its last sample: {shown(sign, feeling.value)}", fine=True),
        Given("usual", usual.median, "median of what was learned at this load", fine=True),
        Given("spread", usual.spread, "of the upper half, at least the sign's least spread", fine=True),
        Given("clip", Z_CLIP, "a single sample counts no more"),
    )
    return reason(f"sign {sign}", DEVIATION, given, feeling.z, Unit.PLAIN, by=BY, why=why)


def _usual(ground: Ground, spec: PodSpec) -> dict[Sign, Usual]:
    return usual_of(ground.thought.felt.senses, spec, ground.policy.interference)


def _measures(ground: Ground, spec: PodSpec) -> Measures | None:
    view, before = ground.thought.sight.view, ground.before.interference.senses
    cpus_of = CpusOf(view, ground.thought.scene.knobs)
    alone = replace(view, pods=tuple(p for p in view.pods if p.pod.spec.uid == spec.uid))
    return measured(alone, cpus_of, before).get(spec.uid)
