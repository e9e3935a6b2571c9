"""What worker processes of the pipelines run: records, and the augmentation of each record on the host."""

import grain
import numpy as np
from sklearn.datasets import load_sample_images


class Crops:
    """4096 crops of two photographs, uint8 (size, size, 3): as cheap as decoding can be."""

    def __init__(self, size: int = 224) -> None:
        self._size = size
        self._photographs = load_sample_images().images

    def __len__(self) -> int:
        return 4096

    def __getitem__(self, index: int) -> dict:
        photograph = self._photographs[index % 2]
        y, x = index % (photograph.shape[0] - self._size), index % (photograph.shape[1] - self._size)
        return {"image": photograph[y : y + self._size, x : x + self._size], "label": index % 2}

    def __repr__(self) -> str:
        return f"Crops({self._size})"


class NumPy(grain.transforms.RandomMap):
    """Patch dropout, gaussian and poisson noise as NumPy users write them, 8 bits to 8 bits."""

    def random_map(self, element: dict, rng: np.random.Generator) -> dict:
        image = element["image"].astype(np.float32)
        for _ in range(4):
            y, x = rng.integers(0, image.shape[0] - 31), rng.integers(0, image.shape[1] - 31)
            image[y : y + 32, x : x + 32] = 0
        image += rng.standard_normal(image.shape, np.float32) * np.float32(0.05 * 255)
        image = rng.poisson(np.clip(image, 0, 255) * (30 / 255)) * (255 / 30)
        return {**element, "image": np.clip(np.rint(image), 0, 255).astype(np.uint8)}


class Albumentations(grain.transforms.RandomMap):
    """These effects in albumentations; it draws from generators of its own, seeded for each record."""

    def __init__(self, *effects: str) -> None:
        self._effects = effects
        self._transform = None

    def random_map(self, element: dict, rng: np.random.Generator) -> dict:
        if self._transform is None:
            self._transform = self._make()
        self._transform.set_random_seed(int(rng.integers(2**31)))
        return {**element, "image": self._transform(image=element["image"])["image"]}

    def _make(self):
        import albumentations

        size = (32, 32)
        transforms = {
            "patches": albumentations.CoarseDropout(
                num_holes_range=(4, 4), hole_height_range=size, hole_width_range=size, p=1
            ),
            "gaussian": albumentations.GaussNoise(std_range=(0.05, 0.05), p=1),
            "salt_pepper": albumentations.SaltAndPepper(amount=(0.04, 0.04), salt_vs_pepper=(0.5, 0.5), p=1),
            "poisson": albumentations.ShotNoise(scale_range=(1 / 30, 1 / 30), p=1),
        }
        return albumentations.Compose([transforms[effect] for effect in self._effects])
