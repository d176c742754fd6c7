"""Where GANPrompt's distance to its parts sits: teacher, text, or their fusion. Validation split only.

    python benchmarks/fusion.py --run=saved/runs/GANPrompt-... --text=saved/runs/TALLRec-...

``--text`` is a run that knows titles alone, on the same dataset and candidates. Printed, on the validation
candidates: the metrics of the teacher inside ``--run``, of ``--text``, of the whole model, and of the best
sum of the teacher's score and the text's logit (each standardised; one weight, chosen here for GAUC, so this
row is a little too good); then the share of users whose positive the teacher, or the text, or either of them
puts first: no rule that picks one of the two lists for each user does better.
"""

import argparse

import numpy as np

from recbole_ganprompt.evaluation.evaluator import score_candidates
from recbole_ganprompt.evaluation.metrics import hit, ranking_metrics
from recbole_ganprompt.study.robustness import open_run

METRICS = ("auc", "gauc", "hit@1", "ndcg@3")
WEIGHTS = np.linspace(0, 1, 41)


def standard(scores: np.ndarray) -> np.ndarray:
    """Of mean 0 and deviation 1 over all users and candidates."""
    return (scores - scores.mean()) / scores.std()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--run", required=True, help="a finished run of GANPrompt or CoLLM")
    parser.add_argument("--text", required=True, help="a finished run of TALLRec")
    parser.add_argument("--data_path")
    options = parser.parse_args()
    scores = {}
    for name, folder in (("text", options.text), ("run", options.run)):
        model, dataset, _, record = open_run(folder, data_path=options.data_path)
        valid = dataset.evaluation_set("valid")
        scores[name] = score_candidates(model, valid, model.config).numpy()
        candidates = record["candidates"][:8]
        print(f"{name}: {folder} ({record['model']}, seed {record['seed']}, candidates {candidates})")
    teacher = model.teacher.opinions(valid.users, valid.histories, valid.lengths, valid.candidates)
    text = standard(scores["text"])
    fused = {weight: (1 - weight) * standard(teacher) + weight * text for weight in WEIGHTS}
    best = max(WEIGHTS, key=lambda weight: ranking_metrics(fused[weight])["gauc"])
    rows = {
        "teacher": teacher,
        "text": text,
        record["model"]: scores["run"],
        f"teacher + text, weight {best:.3f}": fused[best],
    }
    print("| scores | " + " | ".join(METRICS) + " |\n|---" + "|---" * len(METRICS) + "|")
    for name, values in rows.items():
        metrics = ranking_metrics(values)
        print(f"| {name} | " + " | ".join(f"{metrics[metric]:.4f}" for metric in METRICS) + " |")
    teacher, text = hit(teacher, 1), hit(text, 1)
    either = np.maximum(teacher, text).mean()
    print(f"first: teacher {teacher.mean():.4f}, text {text.mean():.4f}, either {either:.4f}")


if __name__ == "__main__":
    main()
