"""Lists of simulated speakers with scores, for the tests of sv/score."""

import numpy as np

from sv.kaldi.trials import Trials


def build_world(rng, speakers=12, each=4, *, effect=0.7, shift=2.5, digits=None):
    """Return all pairs of some speakers' utterances, scored so that speakers differ."""
    utterances = [f"s{s:02d}-{u}" for s in range(speakers) for u in range(each)]
    enrol, test = np.triu_indices(len(utterances), 1)
    of = np.arange(len(utterances)) // each
    is_target = of[enrol] == of[test]
    good, common = rng.normal(size=(2, speakers)) * effect
    scores = rng.normal(size=len(enrol))
    scores += np.where(is_target, shift + good[of[enrol]], common[of[enrol]] + common[of[test]])
    if digits is not None:
        scores = scores.round(digits)
    trials = Trials(utterances, enrol.astype(np.int32), test.astype(np.int32), is_target)
    return trials, scores, {u: u.split("-")[0] for u in utterances}


def write_list(root, trials, utt2spk):
    """Write the trial list and utt2spk."""
    words = np.where(trials.is_target, "target", "nontarget")
    write_lines(root / "list", trials, words.tolist())
    (root / "utt2spk").write_text("".join(f"{u} {s}\n" for u, s in utt2spk.items()))


def write_system(path, trials, scores):
    """Write the scores of a system with all their digits."""
    write_lines(path, trials, [repr(score) for score in scores.tolist()])


def write_lines(path, trials, words):
    names = trials.utterances
    rows = zip(trials.enrol, trials.test, words, strict=True)
    path.write_text("".join(f"{names[a]} {names[b]} {word}\n" for a, b, word in rows))
