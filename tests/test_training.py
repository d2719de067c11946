"""The training loop, its optimiser and the parts of each stage that can be checked by hand."""

import csv

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from torch import nn

from essaylib import corpus, paths
from essaylib.errors import EssayError
from essaylib.training import autoencoder, clip, cross_attention, judge, tokenizer, unet
from essaylib.training.loop import Schedule, Stage, build_optimisers, train
from essaylib.training.muon import orthogonalise
from essaylib.words import SIZE


def line(folder, target=3.0):
    """A stage that fits one weight to a number."""
    torch.manual_seed(0)
    model = nn.Linear(4, 4)

    def loss(step, progress):
        return (model(torch.ones(1, 4)) - target).pow(2).mean(), {}

    return Stage("line", model, loss, folder, every=10, facts={"without": "a vendor"})


def read(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def test_training_lowers_the_loss_and_keeps_averages(tmp_path):
    stage = line(tmp_path)
    facts = train(stage, Schedule(steps=150, lr=2e-3, batch=1, warmup=5, device="cpu", ema=0.9))
    assert facts["steps"] == 150 and facts["parameters"] == 20
    assert facts["without"] == "a vendor"
    assert stage.loss(0, 0)[0] < 0.05
    rows = read(tmp_path / "line.csv")
    assert [int(r["step"]) for r in rows] == list(range(10, 151, 10))
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


def test_modules_learn_in_training_mode_and_are_validated_in_evaluation_mode(tmp_path):
    stage, modes = line(tmp_path), {"learns": set(), "validated": set()}
    plain = stage.loss

    def loss(step, progress):
        modes["learns"].add(stage.modules.training)
        return plain(step, progress)

    stage.loss, stage.validate = loss, lambda: modes["validated"].add(stage.modules.training) or {}
    stage.modules.eval()
    train(stage, Schedule(steps=25, lr=1e-3, batch=1, device="cpu"))
    assert modes == {"learns": {True}, "validated": {False}}


def test_a_run_goes_on_from_its_checkpoint(tmp_path):
    train(line(tmp_path), Schedule(steps=20, lr=1e-3, batch=1, device="cpu"))
    facts = train(line(tmp_path), Schedule(steps=50, lr=1e-3, batch=1, device="cpu"))
    assert facts["steps"] == 50
    rows = read(tmp_path / "line.csv")
    assert [int(r["step"]) for r in rows] == [10, 20, 30, 40, 50]


def test_the_same_seed_gives_the_same_weights(tmp_path):
    stages = [line(tmp_path / name) for name in ("a", "b")]
    for stage in stages:
        train(stage, Schedule(steps=20, lr=1e-3, batch=1, device="cpu", seed=5))
    assert torch.equal(stages[0].modules.weight, stages[1].modules.weight)


def test_minutes_end_a_run_early(tmp_path):
    facts = train(
        line(tmp_path), Schedule(steps=10**7, lr=1e-4, batch=1, minutes=0.02, device="cpu")
    )
    assert 0 < facts["steps"] < 10**7


def test_the_rate_warms_up_and_ends_at_zero():
    schedule = Schedule(steps=1000, lr=1.0, batch=1, warmup=100, decay=0.5, device="cpu")
    rate = [schedule.rate(s, schedule.progress(s, 0)) for s in range(1000)]
    assert rate[0] == pytest.approx(0.01) and rate[400] == 1 and rate[-1] < 0.01
    assert np.all(np.diff(rate[500:]) <= 0)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    stage = line(tmp_path, target=float("nan"))
    with pytest.raises(EssayError, match="Lower --lr"):
        train(stage, Schedule(steps=5, lr=1e-3, batch=1, device="cpu"))


def test_schedules_refuse_nonsense():
    with pytest.raises(EssayError, match="at least one step"):
        Schedule(steps=0, lr=1e-3, batch=1)


@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (16, 16)])
def test_orthogonalise_flattens_the_spectrum(shape):
    torch.manual_seed(0)
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    matrix = u @ torch.diag(torch.linspace(0.05, 2, len(v))) @ v
    result = orthogonalise(matrix)
    values = torch.linalg.svdvals(result)
    assert values.min() > 0.6 and values.max() < 1.3
    # The singular vectors are kept, as far as bfloat16 has digits: u' x v is diagonal.
    rotated = u.T @ result @ v.T
    assert torch.allclose(rotated, torch.diag(rotated.diagonal()), atol=0.1)


def test_muon_treats_kernels_and_vectors_by_their_own_rules():
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, 3)
    optimisers = build_optimisers(layer, 1e-3)
    before = [p.detach().clone() for p in layer.parameters()]
    layer(torch.randn(2, 8, 5, 5)).pow(2).sum().backward()
    for optimiser in optimisers:
        optimiser.step()
    weight, bias = ((p - q).detach() for p, q in zip(layer.parameters(), before, strict=True))
    assert torch.linalg.svdvals(weight.reshape(8, -1)).max() == pytest.approx(0.02, rel=0.3)
    assert bias.abs().max() == pytest.approx(1e-3, rel=0.01)


def test_captions_name_vendors_as_often_as_asked():
    table = corpus.load().table
    rng = np.random.default_rng(0)
    named = [any(v in c for v in corpus.VENDORS) for c in tokenizer.captions(table, rng)]
    assert 0.5 < np.mean(named) < 0.7
    assert not any(", google" in c for c in tokenizer.captions(table, rng, 0))


def test_psnr_by_hand():
    a = torch.zeros(1, 3, 4, 4)
    assert autoencoder.psnr(a, a + 0.2) == pytest.approx(20, abs=1e-3)


def test_the_decoder_alone_learns_against_noise_and_keeps_the_latents(tmp_path, monkeypatch):
    start, met = tmp_path / "start", []
    autoencoder.build().save_pretrained(start)
    plain = AutoencoderKL.decode

    def decode(vae, latents, *args, **kwargs):
        met.append(latents.std().item())
        return plain(vae, latents, *args, **kwargs)

    monkeypatch.setattr(AutoencoderKL, "decode", decode)
    for amount in (0.0, 10.0):
        monkeypatch.setattr(autoencoder, "NOISE", amount)
        folder = tmp_path / str(amount)
        learnt = autoencoder.run(Schedule(steps=1, lr=1e-3, batch=2), folder, start, True)
    before = AutoencoderKL.from_pretrained(start)
    assert met[1] > 2 * met[0]
    for part in ("encoder", "quant_conv"):
        old, new = (getattr(vae, part).state_dict() for vae in (before, learnt))
        assert all(torch.equal(old[name], new[name]) for name in old)
    assert not torch.equal(before.decoder.conv_in.weight, learnt.decoder.conv_in.weight)


def test_crops_are_signed_and_of_the_size_asked():
    images = torch.from_numpy(corpus.load().take(range(4)).rgb())
    rng = np.random.default_rng(0)
    assert autoencoder.crops(images, rng, 8, 64).shape == (8, 3, 64, 64)
    whole = autoencoder.crops(images, rng, 8, 128)
    assert whole.shape == (2, 3, 128, 128) and whole.abs().max() <= 1


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(tokenizer.run(tmp_path_factory.mktemp("tokenizer")))


def test_the_tokenizer_is_clips_with_its_own_marks(words):
    assert len(words) <= SIZE and words.model_max_length == tokenizer.LENGTH
    ids = words("dog face, google").input_ids
    assert ids[0] == words.bos_token_id and ids[-1] == words.eos_token_id
    assert words.decode(words("Ünïcode 日本").input_ids, skip_special_tokens=True) == "ünïcode 日本"


def test_text_embeddings_do_not_depend_on_padding(words):
    torch.manual_seed(0)
    model = clip.build(words).eval()
    together = clip.embed(model, words, ["pizza", "a rather longer caption of many words"])
    assert torch.allclose(clip.embed(model, words, ["pizza"])[0], together[0], atol=1e-5)


def test_all_patches_give_what_transformers_gives(words):
    torch.manual_seed(0)
    model = clip.build(words).eval()
    pixels = torch.randn(2, 3, 64, 64)
    ours = clip.look(model, pixels, 1.0, torch.Generator().manual_seed(0))
    theirs = model.get_image_features(pixel_values=pixels).pooler_output
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert clip.look(model, pixels, 0.5, torch.Generator().manual_seed(0)).shape == ours.shape


def test_small_towers_keep_a_half_under_six_megabytes(words):
    model = clip.build(words, clip.SMALL)
    assert 2 * sum(p.numel() for p in model.parameters()) < 6e6
    assert clip.embed(model, words, ["pizza"]).shape == (1, clip.SMALL.shared)


def test_a_half_learns_from_its_own_concepts_alone():
    train = corpus.load().where(split="train").table
    rows = [clip.rows_of(half) for half in ("first", "second")]
    assert sorted([*rows[0], *rows[1]]) == list(range(len(train)))
    assert not set(train.concept.iloc[rows[0]]) & set(train.concept.iloc[rows[1]])
    with pytest.raises(EssayError, match="first or second"):
        clip.rows_of("third")


def test_augmented_paper_stays_paper():
    white = torch.full((2, 64, 64, 3), 255, dtype=torch.uint8)
    out = clip.augment(white, torch.Generator().manual_seed(0))
    assert out.mean() == pytest.approx(1, abs=0.01) and out.std() < 0.06


def test_jitter_of_no_strength_leaves_colours_and_place():
    image = torch.full((64, 64, 64, 3), 255, dtype=torch.uint8)
    image[:, 16:48, 16:48] = torch.tensor([200, 40, 40], dtype=torch.uint8)
    plain = clip.to_pixels(image)
    still = clip.augment(image, torch.Generator().manual_seed(0), torch.zeros(64))
    moved = clip.augment(image, torch.Generator().manual_seed(0), torch.ones(64))
    assert (still - plain).abs().mean() < 0.06, "noise alone"
    assert (moved - plain).abs().mean() > 0.12


def test_shuffled_tiles_keep_every_pixel():
    pixels = torch.rand(3, 3, 64, 64)
    out = judge.tiled(pixels, 8, np.random.default_rng(1))
    assert not torch.equal(out, pixels)
    assert torch.equal(out.flatten(1).sort(1).values, pixels.flatten(1).sort(1).values)


def test_scrambled_latents_keep_their_strengths_and_lose_their_places(monkeypatch):
    latents = np.random.default_rng(0).normal(size=(2, 4, 16, 16)).astype(np.float32)
    monkeypatch.setattr(judge.features, "corpus_latents", lambda vae, data: latents)
    monkeypatch.setattr(judge, "painted", lambda vae, found: found.numpy())
    out = judge.scrambled(None, None)
    strengths = [np.abs(np.fft.fft2(x)) for x in (latents, out)]
    np.testing.assert_allclose(*strengths, rtol=1e-3, atol=1e-3)
    assert abs(np.corrcoef(latents.ravel(), out.ravel())[0, 1]) < 0.2


def test_what_shows_nothing_is_made_of_pictures():
    rng = np.random.default_rng(0)
    pixels = torch.arange(12.0).view(12, 1, 1, 1).expand(12, 3, 64, 64).contiguous()
    pixels[:, 0] += torch.linspace(0, 0.9, 64)
    found = judge.nothing(pixels, 6, rng)
    quarters = found[:3, 1, ::63, ::63].flatten(1)
    assert found.shape == (6, 3, 64, 64) and quarters.std(1).min() > 0, "of several pictures"
    assert (found[3:, 1].flatten(1).std(1) == 0).all(), "of one picture"
    assert not torch.equal(found[3:, 0], found[3:, 0].sort(-1).values), "with its tiles shuffled"


def test_the_answer_is_the_concept_and_a_little_its_kin():
    data = corpus.load().table.drop_duplicates("concept")
    concepts = list(data.concept[:300])
    found = judge.answers(concepts, judge.PRACTICE[1].kin)
    torch.testing.assert_close(found.sum(1), torch.ones(300))
    assert (found.diagonal() >= 0.9).all() and (found > 0).all()
    kin = data.subgroup[:300].to_numpy() == data.subgroup.iloc[0]
    assert found[0][kin].min() > found[0][~kin].max()


def test_colours_are_taken_from_some_and_exchanged_in_others():
    red = torch.ones(300, 3, 4, 4) * torch.tensor([1.0, 0, 0]).view(3, 1, 1)
    found = judge.recolour(red.clone(), np.random.default_rng(1))[:, :, 0, 0]
    grey = (found - found[:, :1]).abs().amax(1) < 1e-6
    assert (
        25 < grey.sum() < 75 and 150 < (found == red[:, :, 0, 0]).all(1).sum() <= 300 - grey.sum()
    )


def test_maps_are_restyled_in_training_alone():
    torch.manual_seed(0)
    block = torch.nn.Conv2d(3, 8, 3)
    maps = torch.randn(64, 8, 5, 5) * torch.rand(64, 1, 1, 1) + torch.rand(64, 1, 1, 1)
    restyle = judge.Restyle(seed=0)
    assert restyle(block.eval(), None, maps) is maps
    out = restyle(block.train(), None, maps)
    kept = [torch.allclose(a, b, atol=1e-5) for a, b in zip(out, maps, strict=True)]
    assert 20 < sum(kept) < 60, "about half of the pictures"

    def pattern(x):
        x = x - x.mean(dim=(2, 3), keepdim=True)
        return x / x.std(dim=(2, 3), keepdim=True)

    torch.testing.assert_close(pattern(out), pattern(maps), atol=1e-3, rtol=1e-3)


def test_vendors_are_learned_from_colours(tmp_path, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(judge, "VENDOR_SCHEDULE", Schedule(steps=60, lr=3e-3, batch=16, warmup=1))
    unseen = corpus.load().where(split="validation").take(range(4))
    concepts = list(dict.fromkeys(unseen.table.concept))
    pictures = torch.full((2, 16, 64, 64, 3), 255, dtype=torch.uint8)
    truth = torch.arange(16) % 4
    for i, hand in enumerate(truth):
        top = 8 + 2 * i  # each elsewhere: only the colour tells
        pictures[:, i, top : top + 16, 10:50, :3] = torch.tensor([60 * hand, 90, 200 - 40 * hand])
    made = judge.Judge(judge.Network(len(concepts), 4), judge.blank(concepts))
    judge.manners(made, pictures, truth, unseen, Schedule(1, 1e-3, 1), tmp_path)
    assert (made(pictures[0].numpy()).best_vendor == truth.numpy()).mean() > 0.9


def test_the_unet_predicts_v_and_reads_the_caption():
    torch.manual_seed(0)
    model, noise = unet.build().eval(), unet.scheduler()
    clean, eps = torch.randn(2, 4, 16, 16), torch.randn(2, 4, 16, 16)
    t = torch.tensor([10, 900])
    context = torch.randn(2, 32, 256)

    def error(captions):
        return unet.error(model, noise, clean, eps, t, captions)

    value = error(context)
    assert value.ndim == 0 and torch.isfinite(value)
    assert torch.equal(value, error(context))
    assert not torch.equal(value, error(context.flip(0)))
    model.train()
    assert not torch.equal(value, error(context))  # features are dropped while it learns
    assert 10e6 < sum(p.numel() for p in model.parameters()) < 15e6


@pytest.fixture
def closed_unet():
    """A U-Net, one of whose layers gives everything to the first token, and captions for it."""
    torch.manual_seed(0)
    net = unet.build().eval()
    net.set_attn_processor(AttnProcessor())
    name = next(iter(cross_attention.layers_of(net)))
    layer, block = net.get_submodule(name), net.get_submodule(name.rpartition(".")[0])
    context = torch.randn(4, 32, 256)
    context[..., 0] = 0
    context[:, 0] = 16 * torch.eye(256)[0]  # the start token is the same in every caption
    with torch.no_grad():
        block.norm2.weight.zero_()
        block.norm2.bias.fill_(1)
        layer.to_k.weight[:, 0] = 20 * layer.to_q.weight.sum(1)
    return net, name, context


@pytest.mark.parametrize(("progress", "share"), [(0, 0.58), (0.5, 0.33), (1, 0.13)])
def test_timesteps_come_nearer_to_the_drawing_along_a_run(progress, share):
    torch.manual_seed(0)
    t = unet.timesteps(20_000, progress)
    assert t.min() >= 0 and t.max() < 1000
    assert (t > 850).float().mean().item() == pytest.approx(share, abs=0.02)


def test_a_closed_layer_begins_anew_and_the_unet_draws_as_before(closed_unet):
    net, name, context = closed_unet
    noisy = torch.randn(4, 4, 16, 16)
    with torch.no_grad():
        before = net(noisy, 500, context).sample
        assert cross_attention.reopen(net, context) == [name]
        after = net(noisy, 500, context).sample
    torch.testing.assert_close(after, before, atol=1e-3, rtol=1e-3)
    assert net.get_submodule(name).to_out[0].weight.abs().max() == 0
    assert cross_attention.reopen(net, context) == []


def test_scores_that_stand_too_far_apart_are_scaled_down(closed_unet):
    net, name, context = closed_unet
    limit, noisy = cross_attention.Limiter(net), torch.randn(4, 4, 16, 16)
    layer = net.get_submodule(name)
    with torch.no_grad():
        net(noisy, 500, context)
        assert limit.heard[layer] > 2 * cross_attention.LOUD
        others = [gap for other, gap in limit.heard.items() if other is not layer]
        limit()
        net(noisy, 500, context)
    assert limit.heard[layer].item() == pytest.approx(cross_attention.LOUD, rel=0.01)
    assert max(others) < cross_attention.LOUD, "what is not loud is left alone"


def test_what_the_unet_draws_is_kept_side_by_side(tmp_path, monkeypatch):
    monkeypatch.setattr(unet, "SHOWN", ("pizza", "key"))
    folder = paths.models() / "emoji-ldm"
    vae = AutoencoderKL.from_pretrained(folder / "vae").float()
    path = tmp_path / "samples" / "000250.webp"
    torch.manual_seed(0)
    unet.sample(unet.build().eval(), unet.Reader(folder, "cpu"), vae, path)
    with Image.open(path) as sheet:
        assert sheet.size == (256, 128)
        assert np.asarray(sheet).std() > 1
