"""The bench measures what it says, each method in a process of its own."""

import pytest

from ladder_cli.bench.measure import REPEATS, Shape, compare
from ladder_cli.config.methods import LadderMethodConfig, QLoRAMethodConfig

METHODS = {
    "ladder": LadderMethodConfig(name="ladder", kind="ladder", learning_rate=1e-3, reduction=2, recompute=False),
    "qlora": QLoRAMethodConfig(name="qlora", kind="qlora", learning_rate=1e-3),
}


def test_methods_are_measured_on_the_same_batch_beside_the_reference(tiny_config):
    results = compare(tiny_config, METHODS, Shape(rows=4, tokens=64), reference="qlora")
    assert list(results) == list(METHODS)
    for result in results.values():
        assert len(result["all_step_seconds"]) == REPEATS
        assert result["backbone_seconds"] > 0
        assert result["step_seconds"] > 0
        assert result["tokens_per_second"] == pytest.approx(4 * 64 / result["step_seconds"])
        assert result["peak_memory_bytes"] > 0
    ladder, qlora = results["ladder"], results["qlora"]
    assert ladder["ratio_to_qlora"] == pytest.approx(ladder["step_seconds"] / qlora["step_seconds"])
    assert (ladder["trainable_parameters"], qlora["trainable_parameters"]) == (739_392, 325_632)
    # Both run the backbone once forward; QLoRA's gradients go back through it, the ladder's do not.
    assert ladder["backbone_flops"] < qlora["backbone_flops"]  # LoRA's matrices are in it
    assert ladder["step_flops"] < qlora["step_flops"] < 3 * qlora["backbone_flops"]
    assert ladder["flops_ratio_to_qlora"] == pytest.approx(ladder["step_flops"] / qlora["step_flops"])
    # What QLoRA keeps of the whole backbone is more than a side network of half its width keeps.
    assert ladder["saved_activation_bytes"] < qlora["saved_activation_bytes"]


def test_a_method_that_cannot_be_compiled_says_so_and_the_others_are_measured(tiny_config, without_compiler):
    results = compare(tiny_config, METHODS, Shape(rows=1, tokens=8), reference="qlora", compiled=["ladder"])
    assert results["ladder"].keys() == {"error"}
    assert "torch.compile does not work here" in results["ladder"]["error"]
    assert results["qlora"]["ratio_to_qlora"] == 1
