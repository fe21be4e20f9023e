"""Pictures: what is drawn is what came in."""

import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

import qiaso_jax
from qiaso_jax.node_space.listing import NodeSite

matplotlib = pytest.importorskip("matplotlib", reason="needs the extra examples")
matplotlib.use("Agg")
plt = pytest.importorskip("matplotlib.pyplot")
plot = qiaso_jax.plot
RANDOM = np.random.default_rng(0)
PAGES = "#ffffff", "#1e2129", "#0d1117"
"""White, and the dark pages of mkdocs-material and of GitHub."""


@pytest.fixture(autouse=True)
def no_figure_stays_open():
    yield
    plt.close("all")


def reports(steps=5, kind=qiaso_jax.QIASOInfo):
    return kind(**{name: RANDOM.uniform(size=steps) for name in kind._fields})


def luminance(colour):
    """The relative luminance of the web's guidelines (WCAG 2.1)."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    low, high = channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4
    return np.where(channels <= 0.04045, low, high) @ [0.2126, 0.7152, 0.0722]


@pytest.mark.parametrize("colour", [*plot.COLOURS, plot.GREY])
@pytest.mark.parametrize("page", PAGES)
def test_colours_can_be_seen_on_light_and_dark_pages(colour, page):
    dark, light = sorted([luminance(colour), luminance(page)])
    assert (light + 0.05) / (dark + 0.05) >= 3


def test_text_can_be_read_on_a_phone():
    pixels = 360 / (72 * plot.WIDTH)
    assert plot.STYLE["font.size"] * pixels >= 9
    assert plot.STYLE["legend.fontsize"] * pixels >= 8


def test_the_style_ends_with_its_context():
    before = plt.rcParams["text.color"]
    with plot.style():
        assert plt.rcParams["text.color"] == plot.GREY
    assert plt.rcParams["text.color"] == before


@pytest.mark.parametrize(("points", "marker"), [(1, "o"), (30, "o"), (31, "None")])
def test_few_points_are_marked(points, marker):
    ax = plot.curve(range(points), np.ones(points))
    assert ax.lines[0].get_marker() == marker


def test_a_curve_with_its_band_on_given_axes():
    x, y = np.arange(4.0), RANDOM.uniform(size=4)
    _, given = plt.subplots()
    ax = plot.curve(x, y, (y - 1, y + 2), ax=given, color="red")
    assert ax is given
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), np.stack([x, y], 1))
    (band,) = ax.collections
    drawn = {(a, b) for a, b in np.asarray(band.get_paths()[0].vertices)}
    assert drawn == {*zip(x, y - 1, strict=True), *zip(x, y + 2, strict=True)}


@pytest.mark.parametrize("value", [0.67, -0.67])
def test_an_axis_is_not_of_the_last_digits(value):
    ax = plot.curve([1, 2], [value, value * 1.01])
    low, high = ax.get_ylim()
    assert high - low >= 0.049 * 0.67
    plot.curve([1, 2], [0, 5], ax=ax)
    assert ax.get_ylim()[1] > 5


def test_fields_over_the_steps():
    info = reports()
    ax = plot.over_steps(info, "entropy", label="mine")
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [1, 2, 3, 4, 5])
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), info.entropy)
    assert ax.get_ylabel() == "entropy (nats)"
    assert ax.lines[0].get_label() == "mine"


def test_what_is_not_finite_leaves_a_gap():
    info = reports()._replace(expected_loss=np.array([np.inf, 2, 3, np.nan, 1]))
    ax = plot.losses(info)
    assert np.all(np.isfinite(ax.get_ylim()))
    assert ax.get_ylim()[1] < 4


def test_the_spread_is_between_the_best_loss_and_the_expected():
    info = reports()
    ax = plot.losses(info)
    for line, values in zip(
        ax.lines, (info.expected_loss, info.best_loss), strict=True
    ):
        np.testing.assert_array_equal(line.get_ydata(), values)
    (band,) = ax.collections
    drawn = set(np.asarray(band.get_paths()[0].vertices)[:, 1])
    assert drawn == {*info.expected_loss, *info.best_loss}


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (qiaso_jax.QIASOInfo, ("entropy", "effective_candidates", "num_tunnelled")),
        (qiaso_jax.NodeInfo, ("entropy", "effective_candidates")),
        (qiaso_jax.SearchInfo, ("effective_candidates",)),
    ],
)
def test_a_report_has_what_the_optimizer_reports(kind, fields):
    info = reports(kind=kind)
    _, *panels = plot.report(info).axes
    for ax, name in zip(panels, fields, strict=True):
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), getattr(info, name))
    assert [ax.get_xlabel() for ax in panels] == [""] * (len(fields) - 1) + ["step"]


def test_probabilities_of_candidates():
    p = RANDOM.dirichlet(np.ones(4), size=3)
    (mesh,) = plot.probabilities(np.log(p)).collections
    np.testing.assert_allclose(mesh.get_array(), p.T, rtol=1e-12)
    # Without any probability, as candidates of infinite loss.
    (mesh,) = plot.probabilities([[0.0, -np.inf]]).collections
    np.testing.assert_array_equal(mesh.get_array(), [[1], [0]])


@pytest.fixture(scope="module")
def search():
    """An optimizer of three weights in two leaves, of which one holds a fixed one."""
    tx = qiaso_jax.qiaso(8, sigma=0.3, key=3)
    params = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(0.5), "n": jnp.array(7)}
    return tx, tx.init(params), params


def loss(params, scale):
    return jnp.sum((params["a"] * jnp.array([1.0, 2.0])) ** 2) + scale * params["b"]


def weights(params):
    """Float64, with a leading axis of the candidates."""
    a, b = (np.asarray(params[name], float) for name in "ab")
    return np.concatenate([a.reshape(-1, 2), b.reshape(-1, 1)], axis=1)


def losses_of(points):
    return (points[..., :2] ** 2) @ [1, 4] + 3 * points[..., 2]


def test_a_landscape_on_a_given_plane(search):
    tx, state, params = search
    first = {"a": jnp.array([2.0, 0.0]), "b": jnp.array(0.0), "n": jnp.array(0)}
    second = {"a": jnp.array([5.0, 0.0]), "b": jnp.array(-3.0), "n": jnp.array(0)}
    ax = plot.landscape(
        *search, loss, plane=(first, second), resolution=5, scale=3.0, unknown=1
    )
    mesh, dots = ax.collections[:2]
    # At right angles: what is left of the second beside the first.
    u, v = np.array([1.0, 0, 0]), np.array([0, 0, -1.0])
    x = np.unique(np.round(mesh.get_coordinates()[..., 0], 5))
    middles = (x[1:] + x[:-1]) / 2
    points = weights(params) + middles[:, None, None] * v + middles[:, None] * u
    np.testing.assert_allclose(mesh.get_array(), losses_of(points), rtol=1e-4)
    candidates = weights(qiaso_jax.ask(tx, state, params))
    offsets = candidates - weights(params)
    places = np.stack([offsets @ u, offsets @ v], axis=1)
    np.testing.assert_allclose(dots.get_offsets(), places, atol=1e-5)
    np.testing.assert_allclose(dots.get_array(), losses_of(candidates), rtol=1e-5)
    assert np.abs(places).max() < middles.max()


def test_a_landscape_goes_from_worse_candidates_to_better_ones(search):
    tx, state, params = search
    ax = plot.landscape(*search, loss, resolution=2, scale=3.0)
    places = np.asarray(ax.collections[1].get_offsets())
    candidates = weights(qiaso_jax.ask(tx, state, params))
    offsets, order = candidates - weights(params), np.argsort(losses_of(candidates))
    u = offsets[order[:4]].mean(axis=0) - offsets[order[4:]].mean(axis=0)
    u /= np.linalg.norm(u)
    np.testing.assert_allclose(places[:, 0], offsets @ u, atol=1e-5)
    rest = offsets - np.outer(offsets @ u, u)
    v = np.linalg.svd(rest)[2][0]
    np.testing.assert_allclose(np.abs(places[:, 1]), np.abs(rest @ v), atol=1e-5)


def test_a_landscape_of_two_weights_shows_these():
    tx, params = qiaso_jax.qiaso(5, sigma=0.3), jnp.array([10.0, 20.0])
    state = tx.init(params)
    ax = plot.landscape(tx, state, params, lambda x: x[0] - 3 * x[1], resolution=2)
    mesh, dots = ax.collections[:2]
    candidates = qiaso_jax.ask(tx, state, params)
    np.testing.assert_allclose(dots.get_offsets(), candidates, rtol=1e-6)
    # The corners of its two by two cells, of which each is drawn in the middle.
    corners = mesh.get_coordinates()
    x, y = np.moveaxis((corners[1:, 1:] + corners[:-1, :-1]) / 2, -1, 0)
    np.testing.assert_allclose(mesh.get_array(), x - 3 * y, rtol=1e-5)
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["candidates", "centre"]
    np.testing.assert_array_equal(ax.lines[0].get_xydata(), [params])


SITES = (
    NodeSite("in", "product", "node", 15, 5, 2.5),
    NodeSite("filter", "convolution", "example", 9, 400, 400.0),
    NodeSite("scale", "scaling", "weights", 1, 0, 0.0, "it enters a | b"),
    NodeSite("mean", "weights", "fixed", 3, 0, 0.0, "mask leaves it out"),
)


def test_sites_of_a_network():
    ax = plot.sites(SITES)
    assert [bar.get_width() for bar in ax.patches] == [15, 9, 1, 3]
    assert len({bar.get_facecolor() for bar in ax.patches}) == 4
    nodes, reactive = (line.get_xdata() for line in ax.lines)
    np.testing.assert_array_equal(nodes, [5, 400, np.nan, np.nan])
    np.testing.assert_array_equal(reactive, [2.5, 400, np.nan, np.nan])
    above = [text.get_text() for text in ax.get_yticklabels()]
    assert above[0] == "in\n(product)"
    assert ax.yaxis_inverted()
    assert len(ax.get_legend().get_texts()) == 6
    assert len(plot.sites(SITES[2:]).get_legend().get_texts()) == 2


def test_a_table_of_sites():
    head, _, *rows = plot.site_table(SITES).splitlines()
    assert head.count("|") == 8
    assert rows[0] == "| in | product | node | 15 | 5 | 2.5 | |"
    assert rows[2].endswith("| it enters a \\| b |")
    assert len(rows) == 4


@pytest.mark.parametrize("name", ["figure", "figure.svg", "figure.png", "0.5"])
def test_files_for_print_and_screen(name, tmp_path):
    figure = plot.curve([1, 2], [3, 4])
    vector, pixels = plot.save(figure, tmp_path / name)
    assert vector.suffix == ".svg"
    assert vector.stem == pixels.stem == name.removesuffix(".svg").removesuffix(".png")
    before = vector.read_bytes(), pixels.read_bytes()
    plot.save(figure, tmp_path / name)
    assert (vector.read_bytes(), pixels.read_bytes()) == before
    with Image.open(pixels) as image:
        assert image.width == math.floor(plot.WIDTH * 192)
        assert image.getpixel((0, 0))[3] == 0


def test_what_is_no_figure_is_not_written(tmp_path):
    with pytest.raises(TypeError, match="axes in one, got None"):
        plot.save(None, tmp_path / "figure")


def test_a_caption_keeps_to_the_width():
    figure = plot.curve([1], [1]).figure
    plot.caption(figure, "word " * 60)
    figure.draw_without_rendering()
    extent = figure._supxlabel.get_window_extent()
    assert 0 <= extent.x0 < extent.x1 <= figure.bbox.x1


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: plot.curve([1, 2], [1]), "of one length, got 2, 1"),
        (lambda: plot.curve([1], [1], ([0], [1, 2])), "of one length, got 1, 1, 1, 2"),
        (lambda: plot.curve([], []), "x must be a vector of one number or more"),
        (
            lambda: plot.over_steps(reports(), "entropie"),
            "a field 'entropie'; got a QI",
        ),
        (
            lambda: plot.over_steps(reports()._replace(kl=1.0), "kl"),
            "as jax.lax.scan does, and along one axis; got kl of shape \\[\\]",
        ),
        (lambda: plot.report(object()), "got a object with no fields"),
        (lambda: plot.probabilities(np.zeros((2, 3, 4))), "got \\[2, 3, 4\\]; of sev"),
        (lambda: plot.probabilities([[0.5, 0.5]]), "sums from 3.3 to 3.3"),
        (lambda: plot.sites([]), "one site or more"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()


def test_other_than_sites_are_refused():
    with pytest.raises(TypeError, match="returns, got a str in it"):
        plot.site_table(["kernel"])


@pytest.mark.parametrize(
    ("tx", "params", "arguments", "message"),
    [
        (qiaso_jax.qiaso(2), jnp.ones(3), {}, "span a plane"),
        (qiaso_jax.qiaso(1), jnp.ones(3), {}, "span a plane"),
        (qiaso_jax.qiaso(4), jnp.ones(()), {}, "span a plane"),
        (
            qiaso_jax.qiaso(4),
            jnp.ones(3),
            {"plane": (jnp.ones(3), 2 * jnp.ones(3))},
            "span a plane",
        ),
        (qiaso_jax.qiaso(4), jnp.ones(3, complex), {}, "some are complex"),
        (qiaso_jax.qiaso(4), jnp.ones(3), {"resolution": 1}, "resolution"),
    ],
)
def test_landscapes_that_are_none_are_refused(tx, params, arguments, message):
    with pytest.raises(ValueError, match=message):
        plot.landscape(
            tx, tx.init(params), params, lambda x: jnp.sum(jnp.abs(x)), **arguments
        )


def test_node_space_has_no_landscape():
    tx = qiaso_jax.node_qiaso(optimizer=optax.sgd(1.0))
    with pytest.raises(ValueError, match="has no candidates"):
        plot.landscape(tx, tx.init(jnp.ones(3)), jnp.ones(3), jnp.sum)


def test_losses_that_are_no_scalars_are_refused(search):
    with pytest.raises(ValueError, match="value_fn"):
        plot.landscape(*search, lambda params: params["a"])
