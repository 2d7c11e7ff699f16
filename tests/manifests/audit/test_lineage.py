"""What each stage was made from: a build in which a stage is behind, or a unit decided otherwise, is no whole build."""

import json

from manifests.audit.prove import audit
from manifests.build import Build
from manifests.lineage import hashes, own_stamp


def tell(build, stage, own):
    """Have a plan and the commits of a stage tell what decides each unit alone."""
    path = build / stage / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"own": own}))
    for unit, mine in own.items():
        path = build / stage / f"{unit}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"own": own_stamp(mine)}))


def made_from(build, stage="frames"):
    return {
        unit: {"recipe": None, "inputs": {stage: h}} for unit, h in hashes(stage, Build(build).commits(stage)).items()
    }


def found(build):
    return [(finding.rule, finding.where, finding.examples) for finding in audit(build).findings]


def test_a_stage_made_from_what_is_there_is_clean(build):
    tell(build, "crops", made_from(build))
    assert found(build) == []


def test_a_stage_made_from_other_files(build):
    own = made_from(build)
    own["rig-rec1"]["inputs"]["frames"] = "0" * 64
    tell(build, "crops", own)
    assert found(build) == [("behind", "crops/", ("rig-rec1",))]


def test_a_stage_that_has_not_used_all(build):
    path = build / "shards" / "plan.json"
    packed = hashes("pairs", Build(build).commits("pairs"))
    late = packed.pop("rig-rec2")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"packed": [packed]}))
    assert found(build) == [("behind", "shards/", ("rig-rec2",))]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"packed": [packed, {"rig-rec2": late}]}))
    assert found(build) == []


def test_a_unit_that_was_decided_otherwise(build):
    own = made_from(build)
    tell(build, "crops", own)
    path = build / "crops" / "plan.json"
    own["rig-rec1"]["recipe"] = {"frame_step": 2}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"own": own}))
    assert found(build) == [("fingerprint", "crops/rig-rec1.json", ())]
