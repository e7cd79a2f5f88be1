"""The catalogue of VM sizes: complete, consistent, and right about the size of the tutorials."""

from __future__ import annotations

from datetime import date

import pytest

from gpu_infer.catalog import DEFAULT_SIZE, DEFAULT_SUCCESSOR, VmSize, find_size, sizes

RETIRED = [size for size in sizes() if size.retired]


def size_of(name: str) -> VmSize:
    found = find_size(name)
    assert found is not None, name
    return found


def test_the_tutorials_size_is_retired_and_has_its_successor():
    size = size_of(DEFAULT_SIZE)
    assert (size.gpus, size.gpu, size.retired, size.successor) == (1, "K80", date(2023, 8, 31), DEFAULT_SUCCESSOR)
    assert size.price_per_hour == 0.90
    successor = size_of(DEFAULT_SUCCESSOR)
    assert (successor.vcpus, successor.memory_gb, successor.gpu_memory_gb) == (4, 28, 16)
    assert successor.price_per_hour == 0.526


@pytest.mark.parametrize(
    "name", ["Standard_NC4as_T4_v3", "standard_nc4as_t4_v3", "NC4as_T4_v3", " STANDARD_NC4AS_T4_V3 "]
)
def test_a_size_is_found_however_it_is_written(name):
    assert size_of(name).name == "Standard_NC4as_T4_v3"


@pytest.mark.parametrize("name", ["", "Standard_", "Standard_NC5", "NC4as"])
def test_what_is_no_size_is_not_found(name):
    assert find_size(name) is None


def test_names_are_unique():
    names = [size.name.lower() for size in sizes()]
    assert len(set(names)) == len(names)
    assert all(name.startswith("standard_") for name in names)


@pytest.mark.parametrize("size", RETIRED, ids=lambda size: size.name)
def test_a_retired_size_has_a_successor_that_is_alive_and_no_smaller_per_gpu(size):
    successor = size_of(size.successor)
    assert successor.retired is None
    assert successor.cuda
    assert successor.gpus >= 1
    assert successor.gpus <= max(1, size.gpus)
    assert successor.gpu_memory_gb / successor.gpus >= size.gpu_memory_gb / max(1, size.gpus)
    assert successor.price_per_hour is not None


@pytest.mark.parametrize("size", sizes(), ids=lambda size: size.name)
def test_every_row_is_plausible(size):
    assert 1 <= size.vcpus <= 256
    assert 1 <= size.memory_gb / size.vcpus <= 32
    assert (size.gpus > 0) == bool(size.gpu) == (size.gpu_memory_gb > 0)
    assert size.gpus == int(size.gpus) or 1 / 8 <= size.gpus < 1
    assert bool(size.retired) == bool(size.successor)
    assert size.price_per_hour is None or 0.05 < size.price_per_hour < 150
    assert not size.skips_reserve or size.managed


def test_fractions_amd_and_cpu_are_told_apart():
    assert size_of("NV6ads_A10_v5").gpus == pytest.approx(1 / 6)
    assert (size_of("NV32as_v4").gpus, size_of("NV32as_v4").cuda) == (1, False)
    assert (size_of("Standard_D3_v2").gpus, size_of("Standard_D3_v2").cuda) == (0, False)


@pytest.mark.parametrize(
    ("series", "day"),
    [
        (["NC6", "NC12", "NC24", "NC24r", "NC6_Promo", "NC24r_Promo", "NC6s_v2", "NC24rs_v2"], date(2023, 8, 31)),
        (["ND6s", "ND24rs", "NV6", "NV24", "NV6_Promo"], date(2023, 8, 31)),
        (["NC6s_v3", "NC12s_v3", "NC24s_v3", "NC24rs_v3"], date(2025, 9, 30)),
        (["NV12s_v3", "NV24s_v3", "NV48s_v3", "NV4as_v4", "NV32as_v4"], date(2026, 9, 30)),
        (["NC4as_T4_v3", "NV36ads_A10_v5", "NC24ads_A100_v4", "NC40ads_H100_v5", "ND96isr_H100_v5"], None),
    ],
)
def test_days_of_retirement(series, day):
    assert {size_of(name).retired for name in series} == {day}
