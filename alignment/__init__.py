"""Training, evaluation and release. The only floor that knows torch, trl, peft, accelerate and deepspeed."""
