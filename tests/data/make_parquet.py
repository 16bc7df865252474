"""Makes tests/data/parquet/: small files of the schemas that data sets on the hub have, all texts made up here.

pip install datasets==5.2.0 ; python tests/data/make_parquet.py
"""

from pathlib import Path

import pyarrow.parquet as pq
from datasets import Dataset, Features, Value

here = Path(__file__).parent / "parquet"
here.mkdir(exist_ok=True)


def user(text):
    return {"content": text, "role": "user"}


def assistant(text):
    return {"content": text, "role": "assistant"}


def write(name, rows, features=None, **options):
    table = Dataset.from_list(rows, features=features).with_format("arrow")[:]
    pq.write_table(table, here / f"{name}.parquet", **options)


# trl-lib/ultrafeedback_binarized: two shards, the second in two row groups and data pages of version 2.
pair = lambda i: {
    "chosen": [user(f"question {i}"), assistant(f"good answer {i} é")],
    "rejected": [user(f"question {i}"), assistant(f"bad answer {i}")],
    "score_chosen": 8.0 + i,
    "score_rejected": 3.5,
}
write("trl-pairs-0", [pair(i) for i in range(3)])
write("trl-pairs-1", [pair(i) for i in range(3, 8)], row_group_size=3, data_page_version="2.0", compression="gzip")

# trl-lib/kto-mix-14k
write("kto-mix", [
    {"prompt": [user(f"q{i}")], "completion": [assistant(f"a{i}")], "label": i % 2 == 0} for i in range(4)
])

# HuggingFaceH4/ultrafeedback_binarized
write("h4", [
    {"prompt": f"question {i}", "prompt_id": f"{i:064x}", **pair(i), "messages": pair(i)["chosen"]} for i in range(3)
])

# argilla/ultrafeedback-binarized-preferences, without compression
write("argilla", [
    {"source": "made up", "instruction": f"instruction {i}", "chosen_response": f"yes {i}",
     "rejected_response": f"no {i}", "chosen_avg_rating": 5.0, "rejected_avg_rating": 2.0, "chosen_model": "m"}
    for i in range(2)
], compression="none")

# OpenAssistant/oasst1: its columns but for the many labels, with nulls and nested structs.
message = lambda id, parent, role, text, rank: {
    "message_id": id, "parent_id": parent, "user_id": "u", "created_date": "2023-02-05T00:00:00+00:00", "text": text,
    "role": role, "lang": "en", "review_count": 3, "review_result": True, "deleted": False, "rank": rank,
    "synthetic": False, "model_name": None, "detoxify": {"toxicity": 0.5, "insult": 0.25} if rank else None,
    "message_tree_id": "r", "tree_state": "ready_for_export",
    "labels": {"name": ["spam", "quality"], "value": [0.0, 0.75], "count": [3, 3]} if rank else None,
}
write("oasst", [
    message("r", None, "prompter", "What is red?", None),
    message("a", "r", "assistant", "A colour.", 0),
    message("b", "r", "assistant", "A number.", 1),
    message("c", "a", "prompter", "Which one?", 0),
    message("d", "c", "assistant", "The sky's.", 2),
    message("e", "c", "assistant", "That of blood.", 0),
    message("f", "c", "assistant", "That of roses.", 1),
])

# A schema that nothing here reads, one whose label is a number, and a compression that is not read.
write("other", [{"question": "?", "answer": "!", "score": 1.5}])
write("label", [{"prompt": "p", "completion": "c", "label": 1}], Features(
    {"prompt": Value("string"), "completion": Value("string"), "label": Value("int64")}))
write("zstd", [{"prompt": "p", "completion": "c", "label": True}], compression="zstd")
