"""Fits the coefficients in grain_datarax/random/normal.py and poisson.py, and prints them. Needs SciPy; seconds."""

import numpy as np
from scipy import special, stats

Z_MOST = 5.6  # the outermost level, 2**-24, is at 5.42


def fit_normal(top_degree=5, bottom_degree=4):
    """z / (2 level - 1) as a ratio of polynomials in w = -log(4 level (1 - level)), its relative error levelled out."""
    w = 15.4 * (0.5 - 0.5 * np.cos(np.pi * (np.arange(6000) + 0.5) / 6000))
    centred = np.sqrt(-np.expm1(-w))  # 2 level - 1, for levels above a half
    z = np.where(centred < 0.5, np.sqrt(2) * special.erfinv(centred), -special.ndtri(np.exp(-w) / (1 + centred) / 2))
    ratio = z / centred
    weight, bottom_before = 1 / ratio, np.ones_like(w)
    powers = w[:, None] ** np.arange(max(top_degree, bottom_degree) + 1)
    for _ in range(60):
        columns = np.hstack([powers[:, : top_degree + 1], -ratio[:, None] * powers[:, 1 : bottom_degree + 1]])
        scale = weight / bottom_before
        found = np.linalg.lstsq(columns * scale[:, None], ratio * scale, rcond=None)[0]
        top, bottom = found[: top_degree + 1], np.concatenate([[1.0], found[top_degree + 1 :]])
        bottom_before = np.polyval(bottom[::-1], w)
        error = np.polyval(top[::-1], w) / bottom_before / ratio - 1
        weight = weight * (1 + 0.3 * np.abs(error) / np.abs(error).max())
        weight /= weight.mean()
    print("normal, relative error", f"{np.abs(error).max():.1e}")
    return top, bottom


def fit_poisson(least=10, degrees=(6, 4, 1)):
    """quantile - mean - sqrt(mean) z = z**2 A(s) + B(s) + C(s) / mean with s = z / sqrt(mean), for counts >= least."""
    parts = []
    for mean in np.geomspace(0.1, 2e4, 500):
        low = max(least, int(stats.poisson.ppf(2.0**-25, mean)) - 1)
        high = int(stats.poisson.isf(2.0**-25, mean)) + 1
        if high <= low:
            continue
        count = np.unique(np.linspace(low, high, min(high - low + 1, 60)).astype(int)).astype(float)
        below, above = special.gammaincc(count, mean), special.gammainc(count, mean)  # P(N < count), P(N >= count)
        z = np.where(below < 0.5, special.ndtri(below), -special.ndtri(above))
        probability = np.maximum(stats.poisson.pmf(count, mean), 1e-6) * max(1, (high - low) / 60)
        parts.append(np.stack([z, np.full_like(z, mean), count, np.sqrt(probability)])[:, np.abs(z) < Z_MOST])
    z, mean, count, weight = np.concatenate(parts, axis=1)
    s = z / np.sqrt(mean)
    columns = [z * z * s**power for power in range(degrees[0] + 1)]
    columns += [s**power for power in range(degrees[1] + 1)]
    columns += [s**power / mean for power in range(degrees[2] + 1)]
    target = count - mean - np.sqrt(mean) * z
    found = np.linalg.lstsq(np.stack(columns, 1) * weight[:, None], target * weight, rcond=None)[0]
    error = np.stack(columns, 1) @ found - target
    print("poisson, error within 4.5 standard deviations", f"{np.abs(error[np.abs(z) < 4.5]).max():.1e}")
    return np.split(found, np.cumsum([degree + 1 for degree in degrees])[:2])


if __name__ == "__main__":
    for polynomials in (fit_normal(), fit_poisson()):
        for coefficients in polynomials:
            print("   ", ", ".join(f"{value:.8e}" for value in coefficients))
