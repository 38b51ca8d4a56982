"""Arithmetic per token of training, as the paper counts it and as it is really done."""


def flops_per_token(
    per_parameter: tuple[float, float, int], backbone_parameters: int, trained_parameters: int
) -> dict[str, int]:
    """FLOPs per training token.

    Args:
        per_parameter: FLOPs for each backbone parameter by the paper's count, the same as really done, and for each
            trained parameter (`Method.training_flops_per_parameter`).
        backbone_parameters: N.
        trained_parameters: n.

    Returns:
        `paper`: 6(N + n) for QLoRA, 2N + 6n for a ladder (section 4.2). `actual`: QLoRA's frozen weights need no
        weight gradient, so 4N + 6n, or 6N + 6n with gradient checkpointing; a suffix of k of L layers takes
        2N + 2(k/L)N + 6n. Attention's own products, which grow
        with the context, are in neither.
    """
    paper, actual, trained = per_parameter
    own = trained * trained_parameters
    return {"paper": round(paper * backbone_parameters) + own, "actual": round(actual * backbone_parameters) + own}
