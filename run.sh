#!/usr/bin/env bash
# Speaker verification and what it costs: corpora -> features -> ResNet -> EER, minDCF, kWh, CO2.
# Every stage runs under a meter that leaves a sidecar (data/energy, exp/<model>/energy).
#   0 corpora   1 manifests   2 augment   3 fbank   4 egs        (shared by all models)
#   5 train     6 extract     7 score                            (each model)
#   8 results   tables and figures of everything in exp
# Usage: ./run.sh [options]
#  e.g.: ./run.sh --egs egs/mini
#        ./run.sh --stage 5 --model resnet50_d_2882
set -euo pipefail

# Begin configuration section.
stage=0           # first stage to run
stop_stage=8      # last stage to run
egs=              # recipe: a folder with conf/, where data/ and exp/ go too (egs/voxceleb)
model=            # model names, or "study": all of conf/models.txt (its first)
nj=               # parallel jobs and CPU threads (the cores of this machine)
ngpu=0            # GPUs of training and extraction, 0: CPU
cmd=utils/run.py  # how jobs are run
precision=fp32    # fp32|fp16|bf16: number format of extraction
forecast=false    # true|false: forecast what the training would cost, instead of training
max_kwh=          # energy of an attempt at which training saves a checkpoint and ends (no limit)
resume=true       # true|false: false does finished jobs again and trains from the beginning
country=          # ISO3 code for the carbon factor (conf/energy.toml's)
data=             # where features go (<egs>/data)
exp=              # where models go (<egs>/exp)
corpora=          # folder that holds the corpora; conf/corpora.toml names each one's place in it
lists=            # folder of trial lists and speaker tables (the corpora themselves)
allow_partial=false  # true|false: go on where a part of a corpus is missing, and say so
# End configuration section.
caller=$PWD here=$(dirname "$(readlink -f "$0")")
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
[[ "$forecast" =~ ^(true|false)$ ]] || bad_option "--forecast must be true or false"
if [ "$forecast" = true ]; then stop_stage=5; fi
[ "$stage" -le "$stop_stage" ] || bad_option "--stage $stage comes after --stop-stage $stop_stage"
[[ "$precision" =~ ^(fp32|fp16|bf16)$ ]] || bad_option "--precision must be fp32, fp16 or bf16"
[[ "$ngpu" =~ ^[01]$ ]] || bad_option "--ngpu must be 0 or 1: one process uses one GPU"
[ -x "${cmd%% *}" ] || bad_option "--cmd: no such program '${cmd%% *}'"
[[ "$nj" =~ ^[1-9][0-9]*$ ]] || bad_option "--nj must be a whole number of at least 1, not '$nj'"

. ./path.sh
read -ra names <<<"$model"
models=$(python3 -m sv.bin.list_models --study "$conf/models.txt" -- "${names[@]}") || exit $?
scoring=$(python3 -m sv.bin.score_config "$conf/score.toml" untrained backends needs_cohort) || exit $?
{ read -r untrained && read -r backends && read -r needs_cohort; } <<<"$scoring"
suffix=${precision#fp32} suffix=${suffix:+_$suffix}
cmd="$cmd --resume $resume"

# Run a stage's command under its meter: meter <stage> <name> <folder> [--model M] -- <command>...
meter() {
  printf '%s: %s stage %s: %s\n' run.sh "$(date '+%F %T')" "$1" "$2" >&2
  utils/meter.sh --stage "$1" --name "$2" --dir "$3" --config "$conf/energy.toml" \
    --country "$country" --end-with-parent true "${@:4}"
}

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

for m in $models; do
  dir=$exp/$m
  if [ "$stage" -le 5 ] && [ "$stop_stage" -ge 5 ]; then
    train=(--cmd "$cmd" --model "$m" --config "$conf/train.toml" --ngpu "$ngpu" --num-threads "$nj")
    if [ "$forecast" = true ]; then
      steps/forecast.sh "${train[@]}" --energy-config "$conf/energy.toml" --country "$country" \
        "$data/egs" "$dir"
      continue
    fi
    meter 5 train "$dir/energy" --model "$m" -- steps/train_xvector.sh "${train[@]}" \
      --max-kwh "$max_kwh" --resume "$resume" "$data/egs" "$dir"
    [ ! -s "$dir/forecast.json" ] || python3 -m sv.bin.forecast --outcome "$dir"
  fi
  if [ "$stage" -le 6 ] && [ "$stop_stage" -ge 6 ]; then
    for set in "${test_sets[@]}"; do
      meter 6 "extract_$set$suffix" "$dir/energy" --model "$m" -- steps/extract_xvectors.sh \
        --cmd "$cmd" --nj "$nj" --ngpu "$ngpu" --precision "$precision" \
        "$dir" "$data/$set" "$dir/xvectors_$set$suffix"
    done
    if [ "$needs_cohort" = true ]; then
      meter 6 "extract_cohort$suffix" "$dir/energy" --model "$m" -- steps/extract_cohort.sh \
        --cmd "$cmd" --nj "$nj" --ngpu "$ngpu" --precision "$precision" \
        --config "$conf/score.toml" "$dir" "$train_set" "$data/egs" "$dir/cohort/xvectors$suffix"
    fi
  fi
  if [ "$stage" -le 7 ] && [ "$stop_stage" -ge 7 ]; then
    while read -r -u 3 trials set; do
      for backend in $backends; do
        name=${trials}_$backend$suffix
        meter 7 "score_$name" "$dir/energy" --model "$m" -- steps/score_trials.sh --cmd "$cmd" \
          --config "$conf/score.toml" --backend "$backend" --cohort "$dir/cohort/xvectors$suffix" \
          --name "$name" --num-threads "$nj" --utt2spk "$data/$set/utt2spk" \
          "$dir/xvectors_$set$suffix" "$data/trials/$trials" "$dir/scores"
      done
      if [ "$untrained" = true ] && [ -z "$suffix" ]; then
        meter 7 "untrained_$trials" "$dir/energy" --model "$m" -- steps/score_untrained.sh \
          --cmd "$cmd" --nj "$nj" --ngpu "$ngpu" \
          "$dir" "$data/$set" "$data/trials/$trials" "$dir/scores"
      fi
    done 3<"$data/test_trials"
  fi
done

if [ "$stage" -le 8 ] && [ "$stop_stage" -ge 8 ]; then
  meter 8 results "$exp/energy" -- steps/make_results.sh "$data" "$exp"
fi
