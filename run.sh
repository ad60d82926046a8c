#!/usr/bin/env bash
# Speaker verification and what it costs: corpora -> features -> ResNet -> EER, minDCF, kWh, CO2.
# Every stage runs under a meter that leaves a sidecar (data/energy, exp/<model>/energy).
#   0 corpora   1 manifests   2 augment   3 fbank   4 egs        (shared by all models)
#   5 train     6 extract     7 score                            (each model)
#   8 results   tables, figures and a page of everything in exp
# Usage: ./run.sh [options]
#  e.g.: ./run.sh --egs egs/mini
#        ./run.sh --stage 5 --model study --precision "fp32 bf16"
#        ./run.sh --stage 5 --model study --parallel 4 --ngpu 4 --cmd "utils/slurm.py --config F"
if [ -z "${BASH_VERSION:-}" ]; then exec bash "$0" "$@"; fi  # sh run.sh
set -euo pipefail

# Begin configuration section.
stage=0           # first stage to run
stop_stage=8      # last stage to run
egs=              # recipe: a folder with conf/, where data/ and exp/ go too (egs/voxceleb)
model=            # model names, or "study": all of conf/models.txt (its first)
nj=               # parallel jobs and CPU threads (the cores of this machine)
ngpu=             # GPUs of a machine for training and extraction, 0: CPU (all visible; with another --cmd: give it)
nnodes=1          # machines that a training runs on
parallel=1        # systems at a time: on a machine each has its part of the GPUs and cores
cmd=utils/run.py  # how jobs are run, with its options: "utils/slurm.py --config F"
precision=fp32    # fp32|fp16|bf16, several in quotes: number format of extraction
forecast=false    # true|false: forecast what the training would cost, instead of training
max_kwh=          # energy of an attempt at which training saves a checkpoint and ends (no limit)
resume=true       # true|false: false does finished jobs again and trains from the beginning
skip_finished=false  # true|false: leave finished stages of a model alone (always with several)
country=          # ISO3 code for the carbon factor (conf/energy.toml's)
data=             # where features go (<egs>/data)
features_root=    # disk of each node for copies of the training features: '$SLURM_TMPDIR' (none)
exp=              # where models go (<egs>/exp)
corpora=          # folder that holds the corpora; conf/corpora.toml names each one's place in it
lists=            # folder of trial lists and speaker tables (the corpora themselves)
allow_partial=false  # true|false: go on where a part of a corpus is missing, and say so
# End configuration section.
given=("$@")
caller=$PWD
here=$(dirname "$(readlink -f "$0")")
linked=
if [ -L "$0" ]; then
  # Called through a recipe's own link (egs/voxceleb/run.sh): that recipe is meant.
  linked=$(realpath --relative-to="$here" "$(dirname "$0")")
  egs=$linked
fi
. "$here/utils/parse_options.sh"
[ $# -eq 0 ] || usage
cd "$here"

if [ "$caller" != "$here" ]; then
  # Paths on the command line are meant from where it was typed.
  for option in data exp corpora lists; do
    if [[ -n "${!option}" && "${!option}" != /* ]]; then
      printf -v "$option" '%s' "$caller/${!option}"
    fi
  done
  if [[ -n "$egs" && "$egs" != /* && "$egs" != "$linked" && -d "$caller/$egs/conf" ]]; then
    # One name for a recipe, wherever it is typed: names are part of the proof of finished jobs.
    egs=$(realpath --relative-base="$here" "$caller/$egs")
  fi
fi
egs=${egs:-egs/voxceleb}
egs=${egs%/}
conf=$egs/conf
data=${data:-$egs/data}
exp=${exp:-$egs/exp}
# nproc would take OMP_NUM_THREADS, which path.sh sets for every process, for the number of cores.
nj_given=$nj
nj=${nj:-$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)}
if [ "$forecast" = true ]; then stop_stage=5; fi

[[ "$egs$data$exp" != *JOB* ]] || bad_option "JOB stands for the number of a job: no --egs, --data or --exp may have it in its name"
[ -d "$conf" ] || bad_option "no recipe in '$egs': no such folder $conf"
[[ "$stage" =~ ^[0-8]$ && "$stop_stage" =~ ^[0-8]$ ]] || bad_option "the stages are 0 to 8"
[ "$stage" -le "$stop_stage" ] || bad_option "--stage $stage comes after --stop-stage $stop_stage"
[[ "$precision " =~ ^((fp32|fp16|bf16)\ +)+$ ]] || bad_option "--precision is fp32, fp16 or bf16"
[[ "$ngpu" =~ ^(0|[1-9][0-9]*)?$ ]] || bad_option "--ngpu must be a whole number, not '$ngpu'"
[[ "$nnodes" =~ ^[1-9][0-9]*$ ]] || bad_option "--nnodes must be at least 1"
[[ "$features_root" =~ ^([/$].*)?$ ]] || bad_option "--features-root must begin with / or \$, not '$features_root'"
[[ "$parallel" =~ ^[1-9][0-9]{0,3}$ ]] || bad_option "--parallel must be 1 to 9999"
[ -x "${cmd%% *}" ] || bad_option "--cmd: no such program '${cmd%% *}'"
[[ "$nj" =~ ^[1-9][0-9]*$ ]] || bad_option "--nj must be a whole number of at least 1, not '$nj'"

. ./path.sh
read -ra models <<<"$model"
read -ra precisions <<<"$precision"
# What can be refused is refused here: no attempt, no energy.
if [ "$stage" -le 2 ]; then python3 -m local.corpora "$conf/corpora.toml" "$corpora"; fi
needs=(--stage "$stage" --stop-stage "$stop_stage" --cmd "$cmd" --nj "$nj"
  --precision "$precision" --nnodes "$nnodes" --parallel "$parallel" --country "$country")
if [ -n "$ngpu" ]; then needs+=(--ngpu "$ngpu"); fi
if [ -n "$max_kwh" ]; then needs+=(--max-kwh "$max_kwh"); fi
settings=$(python3 -m sv.bin.recipe settings "${needs[@]}" "$conf" "${models[@]}")
{
  read -ra models     # checked; "study" and no name replaced by those of conf/models.txt
  read -r backends    # of conf/score.toml
  read -r needs_cohort
  read -r untrained
  read -r at_once
  read -r ngpu
} <<<"$settings"
cmd="$cmd --resume $resume"

# Every stage is one command under utils/meter.sh, which begins with these options.
metered=(--config "$conf/energy.toml" --country "$country" --end-with-parent true --ngpu 0)
shared=("${metered[@]}" --dir "$data/energy")
gpus=()  # of this machine, for the stages that use them; jobs of Slurm get theirs there
case "${cmd%% *}" in
  *utils/run.py) gpus=(--ngpu "$ngpu") ;;
  *utils/slurm.py) ;;
  *) gpus=(--ngpu "") ;; # nothing is known of it: all that are visible
esac

if [ "$stage" -le 0 ] && [ "$stop_stage" -ge 0 ]; then
  utils/meter.sh "${shared[@]}" --stage 0 --name corpora -- \
    python3 -m local.check_corpora --config "$conf/corpora.toml" --corpora "$corpora" \
    --lists "$lists" --nj "$nj" --allow-partial "$allow_partial"
fi

if [ "$stage" -le 1 ] && [ "$stop_stage" -ge 1 ]; then
  utils/meter.sh "${shared[@]}" --stage 1 --name manifests -- \
    python3 -m local.prepare_data --config "$conf/corpora.toml" --corpora "$corpora" \
    --lists "$lists" --nj "$nj" --allow-partial "$allow_partial" "$data"
fi

if [ "$stage" -le 2 ] && [ "$stop_stage" -ge 2 ]; then
  need "$data/train_set" "run stage 1 first"
  utils/meter.sh "${shared[@]}" --stage 2 --name augment -- \
    python3 -m local.augment_data --config "$conf/corpora.toml" \
    --augment-config "$conf/augment.toml" --corpora "$corpora" --nj "$nj" \
    --allow-partial "$allow_partial" "$data"
fi

if [ "$stop_stage" -ge 3 ] && [ "$stage" -le 7 ]; then
  # What stages 1 and 2 found.
  for f in "$data/train_set" "$data/test_trials" "$data/augment_kinds"; do
    [ -e "$f" ] || die "no such file $f; run stages 1 and 2 first"
  done
  if wrong=$(grep -alE '[/\\[:cntrl:]]|(^| )\.?\.( |$)' "$data"/{train_set,augment_kinds,test_trials}); then
    die "${wrong%%$'\n'*}: not names of folders; run stages 1 and 2 again"
  fi
  train_set=$data/$(cat "$data/train_set")
  mapfile -t kinds <"$data/augment_kinds"
  mapfile -t test_sets < <(cut -d ' ' -f 2 "$data/test_trials" | sort -u)
fi

if [ "$stage" -le 3 ] && [ "$stop_stage" -ge 3 ]; then
  sets=("$train_set")
  for kind in "${kinds[@]}"; do sets+=("${train_set}_$kind"); done
  for set in "${test_sets[@]}"; do sets+=("$data/$set"); done
  utils/meter.sh "${shared[@]}" --stage 3 --name fbank -- \
    steps/make_fbank.sh --cmd "$cmd" --nj "$nj" --config "$conf/features.toml" "${sets[@]}"
fi

if [ "$stage" -le 5 ] && [ "$stop_stage" -ge 3 ]; then
  # A list that stage 7 would refuse is refused before anything is trained.
  python3 -m local.check_lists --allow-partial "$allow_partial" "$data"
fi

if [ "$stage" -le 4 ] && [ "$stop_stage" -ge 4 ]; then
  utils/meter.sh "${shared[@]}" --stage 4 --name egs -- \
    steps/make_egs.sh --config "$conf/train.toml" --kinds "${kinds[*]}" "$train_set" "$data/egs"
fi

systems=$((${#models[@]} * ${#precisions[@]}))
if [ "$systems" -gt 1 ] && [ "$stage" -le 7 ] && [ "$stop_stage" -ge 5 ]; then
  # Several systems: this script once for each, failed or not, then a summary (sv/jobs/study.py).
  nj=${nj_given:-$((nj > at_once ? nj / at_once : 1))}  # of a system
  exec python3 -m sv.bin.recipe walk --stage "$stage" --stop-stage "$stop_stage" \
    --models "${models[*]}" --precisions "$precision" --backend "${backends%% *}" \
    --forecast "$forecast" --parallel "$at_once" "$data" "$exp" -- \
    ./run.sh "${given[@]}" --egs "$egs" --data "$data" --exp "$exp" --corpora "$corpora" \
    --lists "$lists" --nj "$nj" --ngpu "$ngpu" --skip-finished "$resume"
fi

model=${models[0]}
precision=${precisions[0]}
suffix=  # of what is not extracted in fp32
if [ "$precision" != fp32 ]; then suffix=_$precision; fi
dir=$exp/$model
own=("${metered[@]}" --dir "$dir/energy" --model "$model" --skip-finished "$skip_finished")

if [ "$stage" -le 5 ] && [ "$stop_stage" -ge 5 ]; then
  train=(--cmd "$cmd" --model "$model" --config "$conf/train.toml" --ngpu "$ngpu"
    --nnodes "$nnodes" --num-threads "$nj" --features-root "$features_root")
  if [ "$forecast" = true ]; then
    # In the place of this script: a signal to it ends the forecast.
    exec steps/forecast.sh "${train[@]}" --energy-config "$conf/energy.toml" \
      --country "$country" "$data/egs" "$dir"
  fi
  utils/meter.sh "${own[@]}" "${gpus[@]}" --stage 5 --name train -- \
    steps/train_xvector.sh "${train[@]}" --max-kwh "$max_kwh" --resume "$resume" \
    "$data/egs" "$dir"
  if [ -s "$dir/forecast.json" ]; then python3 -m sv.bin.forecast --outcome "$dir"; fi
fi

if [ "$stage" -le 6 ] && [ "$stop_stage" -ge 6 ]; then
  extract=(--cmd "$cmd" --nj "$nj" --ngpu "$ngpu" --precision "$precision")
  for set in "${test_sets[@]}"; do
    utils/meter.sh "${own[@]}" "${gpus[@]}" --stage 6 --name "extract_$set$suffix" -- \
      steps/extract_xvectors.sh "${extract[@]}" "$dir" "$data/$set" "$dir/xvectors_$set$suffix"
  done
  if [ "$needs_cohort" = true ]; then
    utils/meter.sh "${own[@]}" "${gpus[@]}" --stage 6 --name "extract_cohort$suffix" -- \
      steps/extract_cohort.sh "${extract[@]}" --config "$conf/score.toml" \
      "$dir" "$train_set" "$data/egs" "$dir/cohort/xvectors$suffix"
  fi
fi

if [ "$stage" -le 7 ] && [ "$stop_stage" -ge 7 ]; then
  while read -r -u 3 trials set; do
    utils/meter.sh "${own[@]}" --stage 7 --name "score_$trials$suffix" -- \
      steps/score_trials.sh --cmd "$cmd" --config "$conf/score.toml" --backends "$backends" \
      --cohort "$dir/cohort/xvectors$suffix" --suffix "$suffix" --num-threads "$nj" \
      --utt2spk "$data/$set/utt2spk" \
      "$dir/xvectors_$set$suffix" "$data/trials/$trials" "$dir/scores"
    if [ "$untrained" = true ] && [ "$precision" = fp32 ]; then
      utils/meter.sh "${own[@]}" "${gpus[@]}" --stage 7 --name "untrained_$trials" -- \
        steps/score_untrained.sh --cmd "$cmd" --nj "$nj" --ngpu "$ngpu" \
        "$dir" "$data/$set" "$data/trials/$trials" "$dir/scores"
    fi
  done 3<"$data/test_trials"
fi

if [ "$stage" -le 8 ] && [ "$stop_stage" -ge 8 ]; then
  study=()
  if [ -d "$egs/study" ]; then study=(--study "$egs/study"); fi
  utils/meter.sh "${metered[@]}" --stage 8 --name results --dir "$exp/energy" -- \
    steps/make_results.sh "${study[@]}" "$data" "$exp"
fi
