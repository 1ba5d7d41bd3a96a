"""Damaged folders of Hugging Face teachers: read, or one sentence with the folder's name.

FUZZ=2000 python -m pytest tests/test_teacher_fuzz.py runs that many mutations.
"""

import json
import os
import random
import shutil

import torch
from test_formats import cut, flip
from test_huggingface import FACTS, segformer

from pipeline.runtime.errors import InputError
from pipeline.teachers.registry import load_teacher

MUTATIONS = int(os.environ.get("FUZZ", "25"))
ODD = [None, "x", -1, 0, [], {}, 3.5, True, [1, "a"], {"height": -3}, 10**9]
SETTINGS = FACTS | {
    "size": {"height": 64, "width": 96},
    "image_processor_type": "SegformerImageProcessor",
}


def test_a_damaged_folder_of_a_teacher(tmp_path):
    whole, damaged, chance = tmp_path / "whole", tmp_path / "damaged", random.Random(1)
    segformer().save_pretrained(whole)
    (whole / "preprocessor_config.json").write_text(json.dumps(SETTINGS))
    for _ in range(MUTATIONS):
        shutil.rmtree(damaged, ignore_errors=True)
        shutil.copytree(whole, damaged)
        names = ["config.json", "preprocessor_config.json", "model.safetensors"]
        file = damaged / chance.choice(names)
        if file.suffix == ".json" and chance.random() < 0.7:
            facts = json.loads(file.read_text())
            key = chance.choice(sorted(facts))
            facts[key] = chance.choice(ODD)
            if chance.random() < 0.3:
                del facts[key]
            file.write_text(json.dumps(facts))
        else:
            file.write_bytes(chance.choice([flip, cut])(file.read_bytes(), chance))
        try:
            load_teacher(damaged).label(torch.zeros(1, 3, 48, 48), 16)
        except InputError as error:
            assert str(damaged) in str(error), error
