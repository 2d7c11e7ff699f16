# Everything a person does with crosspose. `make` alone lists it.
SOURCE   ?= demo
# What decides the result; SOURCE=humbi is the recipe of that one dataset
RECIPE   ?= $(SOURCE)
OUT      ?= out/$(basename $(notdir $(RECIPE)))
ROOT     ?= $(if $(filter demo,$(RECIPE)),$(ASSETS)/demo)
ASSETS   ?= assets
EXECUTOR ?= ray
# The model to train; most builds train the demo's small one until you say otherwise: MODEL=body
MODEL    ?= demo
SEEDS    ?= 0 1 2
# What a network is fine-tuned for, and from what: INIT=ours (of make pretrain), croco with
# CROCO=file, mae with MAE=file, random (unless said otherwise), or any weights
TASK     ?=
CROCO    ?=
MAE      ?=

export CROSSPOSE_ASSETS := $(abspath $(ASSETS))
# Threads that wait must sleep: on a CPU with other work to do, spinning made training nearly three times slower.
export OMP_WAIT_POLICY ?= PASSIVE
PYTHON   := .venv/bin/python
STATION   = $(PYTHON) -m pipeline $@ --recipe "$(RECIPE)" $(foreach root,$(ROOT),--root $(root)) --out "$(OUT)" --executor $(EXECUTOR) \
            $(if $(RAY_ADDRESS),--ray-address $(RAY_ADDRESS)) $(if $(WORKERS),--workers $(WORKERS)) $(if $(GPUS),--gpus $(GPUS)) \
            $(if $(EXTEND),--extend) $(if $(RETRY_FAILED),--retry-failed)

# Fine-tuning: its run, the rendered data of its domain, and the weights that INIT stands for
RUN       = out/finetune/$(TASK)-$(basename $(notdir $(RECIPE)))-$(notdir $(START))$(if $(SEED),-$(SEED))$(if $(SHARE),-$(SHARE))
OF_HANDS  = $(filter hand_% gesture grasp,$(TASK))
FREE      = free_$(if $(OF_HANDS),hand,body)
FREE_OUT  = out/$(subst _,-,$(FREE))
IS_FREE   = $(filter free smoke,$(RECIPE))
TRAINED  ?= $(if $(filter command environment,$(origin OUT)),$(OUT),out/demo)/pretrain/$(MODEL)
START     = $(or $(INIT),random)
WEIGHTS   = $(if $(filter ours,$(START)),$(TRAINED),$(if $(filter croco,$(START)),$(CROCO),$(if $(filter mae,$(START)),$(MAE),$(START))))
NEEDS     = test -n "$(1)" || { echo "$(2)" >&2; exit 2; }

.DEFAULT_GOAL := help
.PHONY: help install fetch demo sources doctor build ingest render gallery crop pairs shards publish train-parser audit pretrain probe export profile finetune evaluate predict study reconstruct check test test-all soak bench bench-loader bench-parser clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-13s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  RECIPE=demo|cameras|videos|synthetic|synthetic_hand|humbi|...|body|hand|my.yaml  ROOT=folder or source=folder ...  OUT=$(OUT)"
	@echo "  EXECUTOR=ray|local  RAY_ADDRESS=host:port  WORKERS=n  GPUS=0.25  MODEL=demo|body|hand|...  ASSETS=$(ASSETS)"
	@echo "  EXTEND=1 adds to a build what is new; RETRY_FAILED=1 runs again what failed"

install: .venv/installed ## make .venv from the lock file, and install system libraries that are missing

.venv/installed: requirements.lock .ci/setup
	@bash .ci/setup

fetch: install ## get what the demo and the tests read: real clips, motions, the parser's weights, the body
	@$(PYTHON) -m pipeline fetch --assets $(ASSETS)

demo: RECIPE = demo
demo: fetch ## the whole road on real and rendered people: shards, audit, a short training, pictures
	@$(MAKE) --no-print-directory build audit pretrain reconstruct RECIPE=demo OUT=$(OUT) MODEL=demo
	@echo
	@echo "Done. Look at"
	@echo "  shards           $(OUT)/shards/*.tar"
	@echo "  audit report     $(OUT)/audit/report.html"
	@echo "  loss curve       $(OUT)/pretrain/demo/loss.png"
	@echo "  reconstructions  $(OUT)/pretrain/demo/reconstructions.png"
	@echo "and try"
	@echo "  $(PYTHON) -m manifests show $(OUT) --sheet pairs.png       a contact sheet of pairs"
	@echo "  make build RECIPE=cameras ROOT=/my/recordings              your own rig (see README)"
	@echo "  make pretrain MODEL=body OUT=$(OUT)                        the paper's network, on a GPU"

sources: install ## list the datasets that are read: what each needs, its terms, what it gives
	@$(PYTHON) -m pipeline sources

doctor: install ## say what lies under ROOT: what was found, what is missing, what a build would make of it
	@$(PYTHON) -m pipeline doctor $(ROOT) $(if $(ALL),--all)

build: fetch ## ingest, render, crop, pairs, shards in one go; N=10000 rendered images
	@$(STATION) $(if $(N),--images $(N))

ingest: install ## list the frames of every recording under ROOT
	@$(STATION)

render: RECIPE = synthetic
render: fetch ## render synthetic people (RECIPE=synthetic_hand: hands) with exact labels; N=10000 images
	@$(STATION) $(if $(N),--images $(N))

gallery: RECIPE = synthetic
gallery: OUT = out/gallery-$(basename $(notdir $(RECIPE)))
gallery: fetch ## one page of rendered scenes and all their labels, OUT/gallery.html; SCENES=8
	@$(PYTHON) -m pipeline gallery --recipe $(RECIPE) --out $(OUT) --assets $(ASSETS) $(if $(SCENES),--scenes $(SCENES))

crop: fetch ## find and follow people, cut them out, draw silhouettes
	@$(STATION)

pairs: install ## draw cross-view and cross-pose pairs
	@$(STATION)

shards: install ## pack the pairs into WebDataset tars
	@$(STATION)

train-parser: OUT = out/parser
train-parser: fetch ## train a small human parser on rendered people and measure it: RENDERS STEPS SEED, REAL=folder of masks
	@$(PYTHON) -m pipeline train-parser --out $(OUT) --assets $(ASSETS) $(if $(RENDERS),--renders $(RENDERS)) \
	  $(if $(STEPS),--steps $(STEPS)) $(if $(SEED),--seed $(SEED)) $(if $(REAL),--real $(REAL))

publish: install ## copy the shards to an object store: TO=s3://bucket/folder, ALL=1 for every stage, VERIFY=1
	@$(PYTHON) -m pipeline publish $(OUT) $(TO) $(if $(ALL),--all) $(if $(VERIFY),--verify)

audit: install ## prove the build and write OUT/audit/report.html; TABLES=1 without images and tars, ALL=1 with every rendered label
	@$(PYTHON) -m manifests audit $(OUT) $(if $(TABLES),--tables) $(if $(ALL),--all)

pretrain: install ## train MODEL on OUT/shards; goes on from its last checkpoint; INIT=weights, PRETRAIN="--compile ..."
	@$(PYTHON) -m training pretrain --recipe $(MODEL) --shards $(OUT)/shards --out $(OUT)/pretrain/$(MODEL) \
	  $(if $(INIT),--init $(INIT)) $(PRETRAIN) $(if $(filter demo,$(MODEL)),--checkpoint-every 50)

probe: install ## does MODEL use its references? OUT/pretrain/MODEL/probe/probe.html
	@$(PYTHON) -m training probe --run $(OUT)/pretrain/$(MODEL) --shards $(OUT)/shards --out $(OUT)/pretrain/$(MODEL)/probe

export: install ## weights of MODEL as safetensors, under the public names
	@$(PYTHON) -m training export --run $(OUT)/pretrain/$(MODEL) --out $(OUT)/pretrain/$(MODEL)/weights.safetensors

profile: install ## trace 20 steps of MODEL; a run of its own, stop it with Ctrl-C
	@$(PYTHON) -m training pretrain --recipe $(MODEL) --shards $(OUT)/shards --out $(OUT)/profile/$(MODEL) --profile 20

finetune evaluate predict: RECIPE = free
finetune: fetch ## train and score TASK=body_mesh|hand_mesh|keypoints|... from INIT=ours|croco|mae|random; RECIPE=free|paper|my.yaml DATA SEED SHARE
	@$(call NEEDS,$(TASK),say which TASK: body_mesh hand_mesh body_two hand_two densepose keypoints gesture grasp texture)
	@$(call NEEDS,$(WEIGHTS),INIT=$(START) needs a file: CROCO=CroCo.pth or MAE=mae_pretrain_vit_base.pth)
	@$(if $(IS_FREE),$(if $(DATA),,$(PYTHON) -m pipeline render --recipe $(FREE) --out $(FREE_OUT) --executor $(EXECUTOR)))
	@$(PYTHON) -m training finetune --task $(TASK) --recipe $(RECIPE) --init $(WEIGHTS) --out $(RUN) \
	  $(if $(DATA)$(IS_FREE),--data $(or $(DATA),$(FREE_OUT))) $(if $(SEED),--seed $(SEED)) $(if $(SHARE),--share $(SHARE))

evaluate: install ## score the run of `make finetune` again, or on TEST=kind/split DATA=kind=folder; RUN=folder
	@$(PYTHON) -m training evaluate --run $(RUN) $(if $(TASK),--task $(TASK)) $(if $(TEST),--test $(TEST)) $(if $(DATA),--data $(DATA))

predict: install ## ask the run of `make finetune` about a photograph: IMAGE=photo.jpg BOX=x0,y0,x1,y1 (of *_two two of each, in quotes) TO=mesh.glb SIDE=left|right
	@$(call NEEDS,$(IMAGE),say which IMAGE)
	@$(PYTHON) -m training predict --run $(RUN) $(if $(TASK),--task $(TASK)) --image $(IMAGE) $(foreach box,$(BOX),--box=$(box)) \
	  $(if $(SIDE),--side $(SIDE)) --out $(or $(TO),$(RUN)/prediction)

study: OUT = out/study$(if $(OF_HANDS),-hand)
study: fetch ## are references used? 500 rendered people, three seeds: under an hour. With TASK=..., are these weights the better start? STEPS=500 JOBS=2
	@$(MAKE) --no-print-directory build RECIPE=docs/study$(if $(OF_HANDS),_hand).yaml OUT=$(OUT)
ifndef TASK
	@for seed in $(SEEDS); do $(PYTHON) -m training pretrain --recipe study --seed $$seed --shards $(OUT)/shards \
	  --out $(OUT)/pretrain/study-$$seed --log-every 50 || exit $$?; done
	@$(PYTHON) -m training probe --run $(foreach seed,$(SEEDS),$(OUT)/pretrain/study-$(seed)) --shards $(OUT)/shards --out $(OUT)/probe
else
	@for model in study docs/study_mae.yaml; do $(PYTHON) -m training pretrain --recipe $$model --shards $(OUT)/shards \
	  --out $(OUT)/pretrain/$$(basename $$model .yaml)-0 --log-every 50 || exit $$?; done
	@$(if $(DATA),,$(PYTHON) -m pipeline render --recipe $(FREE) --out $(FREE_OUT) --executor $(EXECUTOR))
	@$(PYTHON) -m training compare --task $(TASK) --recipe free --data $(or $(DATA),$(FREE_OUT)) --seed $(SEEDS) \
	  --steps $(or $(STEPS),500) --jobs $(or $(JOBS),2) --out $(OUT)/$(TASK) --init ours=$(OUT)/pretrain/study-0 mae=$(OUT)/pretrain/study_mae-0 random
endif

reconstruct: install ## picture what the trained model completes, on pairs it never saw
	@$(PYTHON) -m training reconstruct --run $(OUT)/pretrain/$(MODEL) --shards $(OUT)/shards --out $(OUT)/pretrain/$(MODEL)/reconstructions.png

check: install ## lint, types, import contracts
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports

.venv/moto/installed: tests/support/moto.lock | install
	@$(PYTHON) -m venv .venv/moto && .venv/moto/bin/pip install --quiet --disable-pip-version-check -r $< && touch $@ \
	  || echo "no S3 server for the tests: those that need one are skipped"

test: fetch .venv/moto/installed ## run the tests (under 15 minutes)
	@$(PYTHON) -m pytest -q

test-all: fetch .venv/moto/installed ## run the slow tests too
	@$(PYTHON) -m pytest -q -m "not gpu and not licensed"

soak: fetch ## hundreds of kills on both executors: nothing lost, doubled or left over; KILLS SEED
	@$(PYTHON) -m pytest -q tests/soak/soak_*.py -m "" --timeout 0 -o log_cli=true -o log_cli_level=INFO

bench: fetch ## measure against what one would use instead
	@$(PYTHON) -m pytest -q tests/bench/bench_*.py --benchmark-enable -m "" --timeout 0 -o log_cli=true -o log_cli_level=INFO

bench-loader: fetch ## the loader against others on the same pixels, and against the floor
	@$(PYTHON) -m pytest -q tests/bench/bench_loader.py -m "" --timeout 0 -o log_cli=true -o log_cli_level=INFO

bench-parser: fetch ## judge human parsers on real masks: out/bench-parser/overlays.png
	@$(PYTHON) -m pytest -q tests/bench/bench_parser.py -m "" --timeout 0 -o log_cli=true -o log_cli_level=INFO

clean: ## remove caches; builds (out/) and assets stay
	@rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .benchmarks build *.egg-info
