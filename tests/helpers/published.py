"""State dicts with the names of the authors' release."""

import torch

CNN = "transformer.embeddings.hybrid_model"


def as_published(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Our names in the authors' spelling, written out independently of the table under test."""
    out = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] == "cnn" and parts[1] == "stages":
            part = {"norm": "gn", "conv": "conv"}.get(parts[4][:-1])
            name = f"{part}{parts[4][-1]}" if part else {"0": "downsample", "1": "gn_proj"}[parts[5]]
            unit = f"block{int(parts[2]) + 1}.unit{int(parts[3]) + 1}"
            key = f"{CNN}.body.{unit}.{name}.{parts[-1]}"
        elif parts[0] == "cnn":
            key = f"{CNN}.root.{('conv', 'gn')[int(parts[2])]}.{parts[-1]}"
        elif key == "embedding.pos_embed":
            key = "transformer.embeddings.position_embeddings"
        elif parts[0] == "embedding":
            key = f"transformer.embeddings.patch_embeddings.{parts[-1]}"
        elif key.startswith("transformer.norm"):
            key = f"transformer.encoder.encoder_norm.{parts[-1]}"
        elif parts[0] == "transformer":
            names = {"norm1": "attention_norm", "norm2": "ffn_norm", "mlp": "ffn", "attn": "attn", "proj": "out"}
            key = f"transformer.encoder.layer.{parts[2]}." + ".".join(names.get(p, p) for p in parts[3:])
        elif parts[1] == "bottleneck":
            key = f"decoder.conv_more.{parts[2]}.{parts[-1]}"
        elif parts[1] == "seg_layers":
            key = f"segmentation_head.0.{parts[-1]}"
        out[key] = value
    return out
