"""What mends what a rule found: which file to remove, which target of `make` to run, or what to say in the recipe."""

import re

from manifests.audit.findings import Finding

TARGETS = {"frames": "ingest", "renders": "render", "crops": "crop", "pairs": "pairs", "shards": "shards"}
SAME = "with the same RECIPE, ROOT and OUT"
_RENDERING = re.compile(rf"(`make (?:render|build)`(?: again)?) {SAME}")
AGAIN = f"run `make {{target}}` again {SAME}"
RECORD = f"remove {{record}}, then {AGAIN}: that unit is made anew, all others stay"
ANEW = "then build into another OUT"
ROWS = (
    "the command tells which file a row is in: remove the commit of that unit (`<unit>.json` beside it), then "
    f"{AGAIN}: it is made anew. If the same is found again, the dataset is so: leave the recording out"
)
OF_RULES = {
    "plan": f"remove {{where}} if it is there, then {AGAIN}: the plan is written anew, and units that fit it stay",
    "fingerprint": f"{AGAIN}: what another recipe made is made anew",
    "behind": f"{AGAIN}, and with EXTEND=1 where units are new",
    "uncommitted": f"{AGAIN}: it goes on where it stopped",
    "unplanned": "run `make {target} EXTEND=1` with the RECIPE and ROOT (of renders: and the N) that have these units, or remove their files",
    "stray": f"{AGAIN}: it sweeps `_tmp`; remove other files by hand",
    "counts": RECORD,
    "leak": f"name the groups of one split in the recipe (`split: val_groups`), or leave one recording out; {ANEW}",
    "copies": f"leave one of the two recordings out, or name both groups in one split; {ANEW}",
    "drawn": f"look at the pairs; give masks of your own, or another `parser:` in the recipe; {ANEW}",
    "balance": f"give the source more recordings, or another `weight` in the recipe; {ANEW}",
    "licence": f"say the terms in the recipe, `licence:` of the source; {ANEW}",
    "packed": f"remove the folder {{stage}}, then {AGAIN}",
    "shards_table": f"{AGAIN}: shards.parquet is written anew",
    "asked": f"give more recordings, or ask for less or for other classes under `pair:` in the recipe; {ANEW}",
    "held_out": f"hold out some and not all, with `split:` in the recipe; {ANEW}",
    "unchecked": "",
}


def mend(finding: Finding, images: int | None = None) -> str:
    """What to do about a finding, in a sentence; empty where nothing is to be done. Paths are below the build's root.

    Args:
        finding: that is to be mended.
        images: how many the renders were asked for, which is no part of their recipe; 0 where there are none, None if nobody knows.
    """
    told = finding.hint or _told(finding)
    if images == 0:
        return told
    number = f"={images}" if images else ""
    return _RENDERING.sub(rf"\1 with the same RECIPE, N{number}, ROOT and OUT", told)


def _told(finding: Finding) -> str:
    folder, _, file = finding.where.partition("/")
    stage = finding.stage
    unit = file.split(".")[0] if folder in TARGETS and not finding.where.endswith(" more places") else ""
    record = f"{stage}/{unit}.json" if unit else f"the commits of those units (`{stage}/<unit>.json`)"
    if file == "shards.parquet":
        told = OF_RULES["shards_table"]
    else:
        told = OF_RULES.get(finding.rule, RECORD if unit else ROWS)
    return told.format(target=TARGETS.get(stage, "build"), stage=stage, record=record, where=finding.where)
