#!/usr/bin/env bash
# Speaker verification and what it costs: corpora -> features -> ResNet -> EER, minDCF, kWh, CO2.
# Every stage runs under a meter that leaves a sidecar (data/energy, exp/<model>/energy).
#   0 corpora   1 manifests   2 augment   3 fbank   4 egs        (shared by all models)
#   5 train     6 extract     7 score                            (each model)
#   8 results   tables, figures and a page of everything in exp
# Usage: ./run.sh [options]
#  e.g.: ./run.sh --egs egs/mini
#        ./run.sh --stage 5 --model study --precision "fp32 bf16"
set -euo pipefail

# Begin configuration section.
stage=0           # first stage to run
stop_stage=8      # last stage to run
egs=              # recipe: a folder with conf/, where data/ and exp/ go too (egs/voxceleb)
model=            # model names, or "study": all of conf/models.txt (its first)
nj=               # parallel jobs and CPU threads (the cores of this machine)
ngpu=0            # GPUs of a machine for training and extraction, 0: CPU
nnodes=1          # machines that a training runs on
cmd=utils/run.py  # how jobs are run, with its options: "utils/slurm.py --config F"
precision=fp32    # fp32|fp16|bf16, several in quotes: number format of extraction
forecast=false    # true|false: forecast what the training would cost, instead of training
max_kwh=          # energy of an attempt at which training saves a checkpoint and ends (no limit)
resume=true       # true|false: false does finished jobs again and trains from the beginning
skip_finished=false  # true|false: leave finished stages of a model alone (always with several)
country=          # ISO3 code for the carbon factor (conf/energy.toml's)
data=             # where features go (<egs>/data)
exp=              # where models go (<egs>/exp)
corpora=          # folder that holds the corpora; conf/corpora.toml names each one's place in it
lists=            # folder of trial lists and speaker tables (the corpora themselves)
allow_partial=false  # true|false: go on where a part of a corpus is missing, and say so
# End configuration section.
given=("$@") caller=$PWD here=$(dirname "$(readlink -f "$0")")
# Called through a recipe's own link (egs/voxceleb/run.sh), that recipe is meant.
if [ -L "$0" ]; then egs=$(realpath --relative-to="$here" "$(dirname "$0")"); fi
. "$here/utils/parse_options.sh"
[ $# -eq 0 ] || usage
cd "$here"
if [ "$caller" != "$here" ]; then
  # Paths on the command line are meant from where it was typed.
  for path in data exp corpora lists; do
    [[ -z "${!path}" || "${!path}" = /* ]] || printf -v "$path" '%s' "$caller/${!path}"
  done
  [[ -z "$egs" || "$egs" = /* || -d "$egs" ]] || egs=$caller/$egs
fi
egs=${egs:-egs/voxceleb} egs=${egs%/} data=${data:-$egs/data} exp=${exp:-$egs/exp} conf=$egs/conf
[ -d "$conf" ] || bad_option "no recipe in '$egs': no such folder $conf"
# nproc would take OMP_NUM_THREADS, which path.sh sets for every process, for the number of cores.
nj=${nj:-$(env -u OMP_NUM_THREADS -u OMP_THREAD_LIMIT nproc)}
[[ "$stage" =~ ^[0-8]$ && "$stop_stage" =~ ^[0-8]$ ]] || bad_option "the stages are 0 to 8"
if [ "$forecast" = true ]; then stop_stage=5; fi
[ "$stage" -le "$stop_stage" ] || bad_option "--stage $stage comes after --stop-stage $stop_stage"
[[ "$precision " =~ ^((fp32|fp16|bf16)\ +)+$ ]] || bad_option "--precision is fp32, fp16 or bf16"
[ "$nnodes" -ge 1 ] || bad_option "--nnodes must be at least 1"
[ -x "${cmd%% *}" ] || bad_option "--cmd: no such program '${cmd%% *}'"
[[ "$nj" =~ ^[1-9][0-9]*$ ]] || bad_option "--nj must be a whole number of at least 1, not '$nj'"

. ./path.sh
. utils/stages.sh  # meter and model_stage, which run a stage's command
read -ra names <<<"$model"
models=$(python3 -m sv.bin.list_models --study "$conf/models.txt" -- "${names[@]}") || exit $?
scoring=$(python3 -m sv.bin.score_config "$conf/score.toml" untrained backends needs_cohort) || exit $?
{ read -r untrained && read -r backends && read -r needs_cohort; } <<<"$scoring"
cmd="$cmd --resume $resume"

where=(--config "$conf/corpora.toml" --corpora "$corpora" --lists "$lists" --nj "$nj"
  --allow-partial "$allow_partial")
if [ "$stage" -le 0 ] && [ "$stop_stage" -ge 0 ]; then
  meter 0 corpora "$data/energy" -- python3 -m local.check_corpora "${where[@]}"
fi
if [ "$stage" -le 1 ] && [ "$stop_stage" -ge 1 ]; then
  meter 1 manifests "$data/energy" -- python3 -m local.prepare_data "${where[@]}" "$data"
fi
if [ "$stage" -le 2 ] && [ "$stop_stage" -ge 2 ]; then
  [ -s "$data/train_set" ] || die "no such file $data/train_set; run stage 1 first"
  meter 2 augment "$data/energy" -- python3 -m local.augment_data \
    --config "$conf/corpora.toml" --augment-config "$conf/augment.toml" --corpora "$corpora" \
    --nj "$nj" "$data"
fi

# What stages 1 and 2 found is read from here on.
if [ "$stop_stage" -ge 3 ] && [ "$stage" -le 7 ]; then
  for f in "$data/train_set" "$data/test_trials" "$data/augment_kinds"; do
    [ -e "$f" ] || die "no such file $f; run stages 1 and 2 first"
  done
  train_set=$data/$(cat "$data/train_set")
  mapfile -t kinds <"$data/augment_kinds"
  mapfile -t test_sets < <(cut -d ' ' -f 2 "$data/test_trials" | sort -u)
fi
if [ "$stage" -le 3 ] && [ "$stop_stage" -ge 3 ]; then
  meter 3 fbank "$data/energy" -- steps/make_fbank.sh --cmd "$cmd" --nj "$nj" \
    --config "$conf/features.toml" "$train_set" "${kinds[@]/#/${train_set}_}" "${test_sets[@]/#/$data/}"
fi
if [ "$stage" -le 4 ] && [ "$stop_stage" -ge 4 ]; then
  meter 4 egs "$data/energy" -- steps/make_egs.sh \
    --config "$conf/train.toml" --kinds "${kinds[*]}" "$train_set" "$data/egs"
fi

# Several systems: this script once for each, failed or not, then a summary (sv/study/walk.py).
if [ "$(wc -w <<<"$models $precision")" -gt 2 ] && [ "$stage" -lt 8 ] && [ "$stop_stage" -gt 4 ]; then
  exec python3 -m sv.bin.walk --stage "$stage" --stop-stage "$stop_stage" --models "$models" \
    --precisions "$precision" --backend "${backends%% *}" --forecast "$forecast" "$data" "$exp" -- \
    ./run.sh "${given[@]}" --egs "$egs" --data "$data" --exp "$exp" --corpora "$corpora" \
    --lists "$lists" --skip-finished "$resume"
fi

model=$models dir=$exp/$models suffix=${precision#fp32} suffix=${suffix:+_$suffix}
if [ "$stage" -le 5 ] && [ "$stop_stage" -ge 5 ]; then
  train=(--cmd "$cmd" --model "$model" --config "$conf/train.toml" --ngpu "$ngpu" --nnodes "$nnodes"
    --num-threads "$nj")
  if [ "$forecast" = true ]; then
    # In the place of this script: a signal to it ends the forecast.
    exec steps/forecast.sh "${train[@]}" --energy-config "$conf/energy.toml" --country "$country" \
      "$data/egs" "$dir"
  fi
  model_stage 5 train -- steps/train_xvector.sh "${train[@]}" --max-kwh "$max_kwh" \
    --resume "$resume" "$data/egs" "$dir"
  [ ! -s "$dir/forecast.json" ] || python3 -m sv.bin.forecast --outcome "$dir"
fi
extract=(--cmd "$cmd" --nj "$nj" --ngpu "$ngpu" --precision "$precision")
if [ "$stage" -le 6 ] && [ "$stop_stage" -ge 6 ]; then
  for set in "${test_sets[@]}"; do
    model_stage 6 "extract_$set$suffix" -- steps/extract_xvectors.sh "${extract[@]}" \
      "$dir" "$data/$set" "$dir/xvectors_$set$suffix"
  done
  if [ "$needs_cohort" = true ]; then
    model_stage 6 "extract_cohort$suffix" -- steps/extract_cohort.sh "${extract[@]}" \
      --config "$conf/score.toml" "$dir" "$train_set" "$data/egs" "$dir/cohort/xvectors$suffix"
  fi
fi
if [ "$stage" -le 7 ] && [ "$stop_stage" -ge 7 ]; then
  while read -r -u 3 trials set; do
    for backend in $backends; do
      name=${trials}_$backend$suffix
      model_stage 7 "score_$name" -- steps/score_trials.sh --cmd "$cmd" \
        --config "$conf/score.toml" --backend "$backend" --cohort "$dir/cohort/xvectors$suffix" \
        --name "$name" --num-threads "$nj" --utt2spk "$data/$set/utt2spk" \
        "$dir/xvectors_$set$suffix" "$data/trials/$trials" "$dir/scores"
    done
    if [ "$untrained" = true ] && [ -z "$suffix" ]; then
      model_stage 7 "untrained_$trials" -- steps/score_untrained.sh --cmd "$cmd" --nj "$nj" \
        --ngpu "$ngpu" "$dir" "$data/$set" "$data/trials/$trials" "$dir/scores"
    fi
  done 3<"$data/test_trials"
fi

if [ "$stage" -le 8 ] && [ "$stop_stage" -ge 8 ]; then
  if [ -d "$egs/study" ]; then study=(--study "$egs/study"); else study=(); fi
  meter 8 results "$exp/energy" -- steps/make_results.sh "${study[@]}" "$data" "$exp"
fi
