"""Which layers of a backbone run, and through which of them gradients pass."""


def watched(layers):
    """By number of the layer, from 0: whether its output needs a gradient, and how often it has run.

    Both are filled while the layers run. Runs are counted at the norm inside, so that a layer that is run again in the
    backward pass counts twice.
    """
    needs_gradient, runs = {}, dict.fromkeys(range(len(layers)), 0)

    def enters(number):
        def hook(module, args):
            runs[number] += 1

        return hook

    def leaves(number):
        def hook(module, args, output):
            needs_gradient[number] = output.requires_grad

        return hook

    for number, layer in enumerate(layers):
        layer.input_layernorm.register_forward_pre_hook(enters(number))
        layer.register_forward_hook(leaves(number))
    return needs_gradient, runs
