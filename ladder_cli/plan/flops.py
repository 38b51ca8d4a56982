"""Arithmetic per token of training, as the paper counts it and as it is really done."""

from ladder_cli.methods.base import Cost


def flops_per_token(cost: Cost, trained_parameters: int) -> dict[str, int]:
    """FLOPs per training token.

    Args:
        cost: of the method on its trunk (`Method.cost`).
        trained_parameters: n.

    Returns:
        `paper`: 6(N + n) for QLoRA, 2N + 6n for a ladder (section 4.2). `actual`: QLoRA's frozen weights need no
        weight gradient, so 4N + 6n, or 6N + 6n with gradient checkpointing; a suffix of k of L layers takes
        2N + 2(k/L)N + 6n; a ladder 2N + 6n, less what its pass leaves out. Attention's own products, which grow
        with the context, are in neither.
    """
    own = cost.per_trained * trained_parameters
    return {"paper": round(cost.paper) + own, "actual": round(cost.actual) + own}
