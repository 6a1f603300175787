"""Each loss against a second implementation in NumPy: its value, and its slope by differences."""

import mxnet as mx
import numpy as np
import pytest

from symbols import NetworkError, losses

WEIGHTS = (0.5, 3.0, 1.25)
LABEL = np.array([[0, 1, 2, 255, 1, 0], [2, 2, 0, 1, 255, 1]], np.float32)


def computed(loss, scores, label=LABEL, weights=(), normalization="valid"):
    """Outputs of the graph and the gradient of the scores."""
    symbol = losses.add_loss(
        mx.sym.Variable("scores"), classes=scores.shape[1], loss=loss,
        normalization=normalization, ignore_label=255, class_weights=weights,
    )  # fmt: skip
    names = symbol.list_arguments()
    shapes = dict(zip(names, symbol.infer_shape(scores=scores.shape)[0]))
    assert shapes["seg_loss_label"] == label.shape
    requests = {name: "write" if name == "scores" else "null" for name in names}
    bound = symbol.simple_bind(mx.cpu(), grad_req=requests, scores=scores.shape)
    bound.arg_dict["scores"][:], bound.arg_dict["seg_loss_label"][:] = scores, label
    outputs = [output.asnumpy() for output in bound.forward(is_train=True)]
    bound.backward()
    return outputs, bound.grad_dict["scores"].asnumpy()


def expected(loss, scores, label, weights, normalization):
    """The loss as a number, cell by cell in double precision."""
    weights = weights or (1.0,) * scores.shape[1]
    exponentials = np.exp(scores.astype(float))
    probability = exponentials / exponentials.sum(axis=1, keepdims=True)
    cells = [
        (probability[n, int(label[n, i]), i], weights[int(label[n, i])])
        for n, i in np.ndindex(label.shape)
        if label[n, i] != 255
    ]
    total = 0.0
    for term in loss.split("+"):
        if term == "dice":
            found = []
            for train_id, weight in enumerate(weights):
                truth = label == train_id
                if truth.any():
                    p = probability[:, train_id]
                    both, sums = p[truth].sum(), p[label != 255].sum() + truth.sum()
                    found.append(weight * (1 - (2 * both + 1) / (sums + 1)))
            total += np.mean(found)
            continue
        counted = cells
        if term == "ohem":
            hardest = sorted(p for p, _ in cells)[len(cells) // 16]
            counted = [(p, w) for p, w in cells if p <= max(0.7, hardest)]
        factor = {"focal": lambda p: (1 - p) ** 2}.get(term, lambda p: 1)
        number = label.size if normalization == "fixed" else len(counted)
        total += sum(w * factor(p) * -np.log(p) for p, w in counted) / number
    return total


def slope(function, scores, step=1e-5):
    """Central differences."""
    found = np.zeros_like(scores)
    for place in np.ndindex(scores.shape):
        ends = []
        for sign in (1, -1):
            moved = scores.copy()
            moved[place] += sign * step
            ends.append(function(moved))
        found[place] = (ends[0] - ends[1]) / (2 * step)
    return found


@pytest.mark.parametrize("weights", [(), WEIGHTS])
@pytest.mark.parametrize("normalization", ["valid", "fixed"])
@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "ohem", "dice", "focal+dice",
                                  "cross_entropy+dice", "ohem+dice"])  # fmt: skip
def test_value_and_gradient(loss, normalization, weights):
    scores = 2 * np.random.default_rng(3).standard_normal((2, 3, 6))
    outputs, gradient = computed(loss, scores.astype(np.float32), LABEL, weights, normalization)
    exponentials = np.exp(scores)
    np.testing.assert_allclose(
        outputs[0], exponentials / exponentials.sum(axis=1, keepdims=True), rtol=1e-5
    )
    wanted = (LABEL, weights, normalization)
    if loss != "cross_entropy":  # SoftmaxOutput gives no value
        assert outputs[1] == pytest.approx([expected(loss, scores, *wanted)], rel=1e-5)
    np.testing.assert_allclose(
        gradient, slope(lambda moved: expected(loss, moved, *wanted), scores), atol=2e-6
    )
    assert (gradient[0, :, 3] == 0).all() and (gradient[1, :, 4] == 0).all()  # ignored


def test_by_hand():
    """Two classes of probability 1/2: ln 2 = 0.6931."""
    scores, label, ln2 = np.zeros((1, 2, 1), np.float32), np.zeros((1, 1)), np.log(2)
    (_, value), gradient = computed("focal", scores, label)
    assert value == pytest.approx([ln2 / 4])
    # (1 - p)^2 - 2 p (1 - p) ln p = 1/4 + ln 2 / 2, times p - 1 and p.
    assert gradient.ravel() == pytest.approx([-(1 / 4 + ln2 / 2) / 2, (1 / 4 + ln2 / 2) / 2])
    (_, value), gradient = computed("dice", scores, label)
    assert value == pytest.approx([1 - (2 * 0.5 + 1) / (0.5 + 1 + 1)])  # 0.2
    # d/dp of -(2p + 1) / (p + 2) is -3 / (p + 2)^2 = -0.48, and dp of the scores +-1/4.
    assert gradient.ravel() == pytest.approx([-0.12, 0.12])
    (_, value), gradient = computed("ohem", scores, label)
    assert value == pytest.approx([ln2]) and gradient.ravel() == pytest.approx([-0.5, 0.5])


def test_easy_cells_do_not_count_but_the_hardest_sixteenth():
    scores = np.zeros((1, 2, 32), np.float32)
    scores[0, 0] = np.linspace(3, 5, 32)  # probabilities of 0.95 to 0.99
    gradient = computed("ohem", scores, np.zeros((1, 32)))[1]
    assert np.flatnonzero(gradient[0, 0]).tolist() == [0, 1, 2]
    scores[0, 0, 20:] = 0.5  # 0.62
    gradient = computed("ohem", scores, np.zeros((1, 32)))[1]
    assert np.flatnonzero(gradient[0, 0]).tolist() == list(range(20, 32))


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "ohem", "dice"])
def test_a_batch_that_is_all_ignored_teaches_nothing(loss):
    scores = np.random.default_rng(0).standard_normal((1, 3, 4)).astype(np.float32)
    outputs, gradient = computed(loss, scores, np.full((1, 4), 255))
    assert (gradient == 0).all()
    assert all(value == 0 for value in outputs[1:])


@pytest.mark.parametrize("loss", ["focal", "ohem", "dice"])
def test_a_network_that_is_sure_has_finite_gradients(loss):
    scores = np.float32([[[200, -200], [-200, 200]]])
    outputs, gradient = computed(loss, scores, np.float32([[1, 1]]))
    assert np.isfinite(gradient).all() and np.isfinite(outputs[1]).all()


def test_an_unknown_loss_is_refused():
    with pytest.raises(NetworkError, match=r"focl.*did you mean focal"):
        computed("focl+dice", np.zeros((1, 2, 1), np.float32))
