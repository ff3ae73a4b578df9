#!/usr/bin/env bash
# Trains the small CADDY of data/pretrained/breakout-caddy from nothing: about an hour of one core.
#
#   bash examples/caddy/train_breakout.sh [folder for the runs]
#
# Data: python scripts/prepare_data.py --dataset=breakout --output_dir=data/breakout
set -euo pipefail
runs=${1:-runs/breakout-caddy}
python=${PYTHON:-python}

train() {  # output, options
  "$python" scripts/train.py --model=caddy --hparams=hparams/breakout/caddy_small.json --input_dir=data/breakout \
    --output_dir="$runs/$1" --validation_clips=16 "${@:2}"
}

# 1. Frames are encoded and decoded; directions, given in full, become the movement of the paddle.
train 1

# 2. Only the discrete action reaches the dynamics, softly; the mutual information keeps all three in use.
action_alone=use_variations=false,pretraining_steps=0,action_directions_kl_lambda=0.0
train 2 --checkpoint="$runs/1" --hparams_override="$action_alone,max_steps=600,lr_schedule=[600,800],\
gumbel_temperature_start=0.8,gumbel_temperature_steps=400"

# 3. One-hot actions, clips of three frames: nothing but the action tells where the paddle goes.
one_hot=$action_alone,hard_gumbel=true,gumbel_temperature_end=0.5,gumbel_temperature_steps=800,\
action_mutual_information_lambda=0.0,entropy_lambda=0.002,ground_truth_observations_start=2,ground_truth_observations_end=2
train 3 --checkpoint="$runs/2" --hparams_override="$one_hot,max_steps=1400,lr_schedule=[1000,1250],batch_size=20,\
sequence_length=3,observations_count_start=3,gumbel_temperature_start=0.7,reconstruction_foreground_weight=8.0"

# 4. Longer clips in which the generator sees its own frames, as when it is played.
train 4 --checkpoint="$runs/3" --hparams_override="$one_hot,max_steps=700,lr=0.001,lr_schedule=[500,620],\
sequence_length=8,observations_count_start=8,gumbel_temperature_start=0.5,reconstruction_foreground_weight=3.0"
