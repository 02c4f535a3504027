"""Random scenes: table tops and rooms with objects dropped by physics, ready to be rendered from many views.

Frames: world is z-up, metres (rooms and table tops differ in scale); a camera looks along its own -z with +y up, as in
MuJoCo. Every random choice comes from the generator handed in, so a seed fixes the scene.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass, field

import mujoco
import numpy as np

from .meshes import Mesh
from .objects import BUILDERS, distractor
from .parts import Built, stretched
from .taxonomy import CATEGORIES, COLOR_NAMES, HELD_OUT_PAIRS, sample_color
from .textures import Bank

Rng = np.random.Generator

HIDDEN_GROUP = 3  # collision shapes; never rendered
MAX_LIGHTS = 4

# Longest side relative to the scene's unit. Compressed, so that a sofa and a mug can share a picture.
RELATIVE_SIZE = {
    "mug": 0.75, "bottle": 1.1, "bowl": 0.9, "ball": 0.7, "box": 1.0, "can": 0.75, "chair": 1.4, "potted plant": 1.25,
    "monitor": 1.35, "traffic cone": 1.15, "stool": 1.2, "lamp": 1.4, "book": 1.0, "laptop": 1.3, "keyboard": 1.4,
    "vase": 1.15, "plate": 1.0, "bucket": 1.0, "teapot": 1.0, "frying pan": 1.4, "hammer": 1.2, "screwdriver": 1.1,
    "banana": 0.95, "flask": 0.95, "microscope": 1.35, "fire extinguisher": 1.3, "clock": 0.9, "sofa": 1.6,
}  # fmt: skip
FURNITURE = {"chair", "potted plant", "traffic cone", "stool", "lamp", "bucket", "fire extinguisher", "sofa", "ball", "box", "monitor", "vase"}
FACING = {"monitor", "laptop", "clock", "microscope", "sofa", "chair", "keyboard", "book", "fire extinguisher", "teapot", "mug"}
TYPICAL = {
    "traffic cone": ["orange", "orange", "red", "yellow"], "banana": ["yellow", "yellow", "green"], "fire extinguisher": ["red"],
    "box": ["brown"], "monitor": ["black", "grey", "white"], "laptop": ["grey", "black", "white"], "frying pan": ["black", "grey"],
    "keyboard": ["black", "white", "grey"], "microscope": ["white", "grey", "black"], "chair": ["brown", "black"], "stool": ["brown", "black"],
    "plate": ["white", "blue"], "potted plant": ["brown", "orange", "white"], "ball": ["orange", "white"], "mug": ["white", "blue"],
    "bottle": ["green", "blue", "brown"], "screwdriver": ["yellow", "red"], "teapot": ["white", "brown"], "lamp": ["white", "yellow"],
}  # fmt: skip

# role -> list of HSV ranges ((h0,h1),(s0,s1),(v0,v1)) to draw from, shininess
ROLE_TINTS: dict[str, tuple[list[tuple[tuple[float, float], ...]], float]] = {
    "accent": ([((0, 1), (0.2, 1), (0.2, 1))], 0.4),
    "dark": ([((0, 1), (0, 0.3), (0.02, 0.2))], 0.4),
    "light": ([((0, 1), (0, 0.1), (0.75, 1))], 0.4),
    "metal": ([((0.55, 0.65), (0, 0.12), (0.45, 0.85)), ((0.1, 0.13), (0.3, 0.6), (0.5, 0.8))], 0.9),
    "wood": ([((0.05, 0.1), (0.35, 0.75), (0.25, 0.75))], 0.2),
    "leaf": ([((0.22, 0.38), (0.4, 0.95), (0.2, 0.75))], 0.3),
    "soil": ([((0.04, 0.09), (0.3, 0.7), (0.08, 0.25))], 0.0),
    "paper": ([((0.08, 0.16), (0.0, 0.2), (0.8, 1))], 0.0),
    "label": ([((0, 1), (0.0, 0.25), (0.8, 1)), ((0, 1), (0.4, 1), (0.3, 1))], 0.2),
    "tape": ([((0.08, 0.12), (0.2, 0.6), (0.5, 0.85))], 0.5),
    "drink": ([((0.03, 0.12), (0.5, 0.9), (0.1, 0.5)), ((0, 1), (0.1, 0.8), (0.5, 1))], 0.6),
    "glow": ([((0.08, 0.16), (0.0, 0.4), (0.9, 1))], 0.0),
    "screen": ([((0, 1), (0, 0.1), (0.85, 1))], 0.7),
    "glass": ([((0.3, 0.6), (0.0, 0.2), (0.7, 1))], 1.0),
}


def tint(rng: Rng, ranges: list[tuple[tuple[float, float], ...]]) -> tuple[float, float, float]:
    (h0, h1), (s0, s1), (v0, v1) = ranges[rng.integers(len(ranges))]
    return colorsys.hsv_to_rgb(rng.uniform(h0, h1) % 1, rng.uniform(s0, s1), rng.uniform(v0, v1))


# Hues that fall between the named colours (turquoise, lime, beige, maroon ...): such objects carry no colour label.
BETWEEN = [
    ((0.47, 0.53), (0.4, 1.0), (0.4, 0.9)), ((0.21, 0.25), (0.5, 1.0), (0.5, 0.9)), ((0.08, 0.12), (0.2, 0.4), (0.65, 0.9)),
    ((0.84, 0.88), (0.6, 1.0), (0.4, 0.8)), ((0.68, 0.71), (0.3, 0.6), (0.5, 0.9)),
]  # fmt: skip


@dataclass
class Item:
    """One object of a scene; `category` is -1 for distractors, `color` -1 where no single colour names it."""

    category: int
    built: Built
    size: float
    body: int = -1
    color: int = -1
    pattern: int = 0
    free_color: bool = True  # the colour may be drawn anew between views
    main_material: int = -1
    alpha: float = 1.0
    points: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))  # surface samples in the body's frame


def allowed_colors(category: int, mode: str) -> list[int]:
    """Colour indices an object may take: `train` avoids held-out pairs, `pairs` wants them, `val` takes all."""
    held = [c for c, name in enumerate(COLOR_NAMES) if (name, CATEGORIES[category]) in HELD_OUT_PAIRS]
    if mode == "train":
        return [c for c in range(len(COLOR_NAMES)) if c not in held]
    return list(range(len(COLOR_NAMES))) if mode == "val" else held


def draw_color(rng: Rng, category: int, mode: str) -> tuple[int, tuple[float, float, float]]:
    """Colour label and rgb for a plainly coloured object; label -1 for in-between hues."""
    if mode == "pairs":
        mode = "pairs" if rng.random() < 0.5 else "val"
    if mode != "pairs" and rng.random() < 0.1:
        return -1, tint(rng, BETWEEN)
    options = allowed_colors(category, mode)
    usual = [COLOR_NAMES.index(c) for c in TYPICAL.get(CATEGORIES[category], [])]
    usual = [c for c in usual if c in options]
    c = int(rng.choice(usual if usual and mode != "pairs" and rng.random() < 0.25 else options))
    return c, sample_color(rng, COLOR_NAMES[c])


def facing_quat(normal: np.ndarray) -> list[float]:
    """Quaternion (w, x, y, z) that turns a geom's +z axis into `normal`, keeping its x axis level."""
    z = normal / np.linalg.norm(normal)
    x = np.cross([0, 0, 1.0], z)
    x = np.array([1.0, 0, 0]) if np.linalg.norm(x) < 1e-6 else x / np.linalg.norm(x)
    q = np.zeros(4)
    mujoco.mju_mat2Quat(q, np.stack([x, np.cross(z, x), z], 1).ravel())
    return q.tolist()


def surface_points(rng: Rng, parts: list[Mesh], count: int) -> np.ndarray:
    """Area-weighted random points f64[count,3] on the meshes."""
    tri = np.concatenate([m.v[m.f] for m in parts])
    area = np.linalg.norm(np.cross(tri[:, 1] - tri[:, 0], tri[:, 2] - tri[:, 0]), axis=1)
    pick = rng.choice(len(tri), count, p=area / area.sum())
    a, b = rng.random((2, count))
    flip = a + b > 1
    a[flip], b[flip] = 1 - a[flip], 1 - b[flip]
    t = tri[pick]
    return t[:, 0] + a[:, None] * (t[:, 1] - t[:, 0]) + b[:, None] * (t[:, 2] - t[:, 0])


class World:
    """A compiled, settled scene. `mode` is "train", "val" or "pairs" (see `allowed_colors`).

    `fixed` takes decisions out of chance: `room` (bool), `categories` (list of indices), `distractors` (count).
    """

    def __init__(self, rng: Rng, bank: Bank, mode: str = "train", width: int = 480, height: int = 360, **fixed):
        self.rng, self.bank, self.mode = rng, bank, mode
        self.width, self.height = width, height
        self.room = bool(fixed.get("room", rng.random() < 0.4))
        self.scale = 3.5 if self.room else 1.0
        self.unit = 0.17 * self.scale
        self.sector = rng.uniform(0, 360)  # azimuth the cameras come from
        self.items: list[Item] = []
        self.spec = mujoco.MjSpec()
        self._pools()
        self._surroundings()
        self._choose_items(fixed)
        self._place_items()
        self._lights_and_camera()
        self.model = self.spec.compile()
        self.data = mujoco.MjData(self.model)
        self._resolve_ids()
        self.settle()

    # --- construction -------------------------------------------------------------------------------------------

    def _texture(self, name: str, image: np.ndarray) -> str:
        t = self.spec.add_texture()
        t.name, t.type, t.width, t.height, t.nchannel = name, mujoco.mjtTexture.mjTEXTURE_2D, image.shape[1], image.shape[0], 3
        t.data = np.ascontiguousarray(image).tobytes()
        return name

    def _material(self, name: str, rgb, texture: str | None = None, shine: float = 0.3, alpha: float = 1.0, repeat=(1.0, 1.0), uniform=False) -> str:
        m = self.spec.add_material()
        m.name, m.rgba = name, [*rgb, alpha]
        m.specular, m.shininess = float(shine), float(0.3 + 0.6 * shine)
        if texture:
            m.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = texture
            m.texrepeat, m.texuniform = list(repeat), uniform
        return name

    def _pools(self) -> None:
        rng, bank = self.rng, self.bank

        def pool(prefix: str, images: list, count: int) -> list[tuple[str, int]]:
            picks = rng.choice(len(images), count, replace=False)
            return [(self._texture(f"{prefix}{i}", images[p][1] if isinstance(images[p], tuple) else images[p]), int(p)) for i, p in enumerate(picks)]

        self.background_pool = pool("bg", bank.backgrounds, 6)
        self.pattern_pool = pool("pat", bank.patterns, 3)
        self.subtle_pool = pool("sub", bank.subtles, 3)
        self.screen_pool = pool("scr", bank.screens, 2)

    def _surroundings(self) -> None:
        rng, s, w = self.rng, self.scale, self.spec.worldbody
        spread = 0.5 * s
        self.table_z = 0.0 if self.room else rng.uniform(0.4, 0.8)
        self._material("floor", (1, 1, 1), self.background_pool[0][0], rng.uniform(0, 0.5), repeat=[rng.uniform(0.3, 2.0) / s] * 2, uniform=True)
        w.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[8 * s, 8 * s, 1], material="floor", friction=[1, 0.02, 0.02])
        facing = np.radians(self.sector)
        self.walls: list[tuple[str, np.ndarray, float]] = []  # geom name prefix, normal, distance from the origin
        for i, offset in enumerate((180, 180 - 90, 180 + 90)):
            if i and rng.random() < 0.45:
                continue
            self._material(f"wall{i}", (1, 1, 1), self.background_pool[1 + i][0], 0.0, repeat=[rng.uniform(0.2, 1.5) / s] * 2, uniform=True)
            a = facing + np.radians(offset + rng.uniform(-20, 20))
            distance = spread + rng.uniform(0.25, 1.6) * s
            n = -np.array([np.cos(a), np.sin(a), 0.0])
            self.walls.append((f"wall{i}", n, distance))
            g = w.add_geom(name=f"wall{i}", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[8 * s, 8 * s, 1], material=f"wall{i}", pos=list(-n * distance), contype=0, conaffinity=0)
            g.quat = facing_quat(n)
            for j in range(rng.integers(0, 4)):  # pictures, doors, windows: flat panels just before the wall
                name = self._material(f"panel{i}_{j}", tuple(rng.uniform(0.5, 1, 3)), self.background_pool[rng.integers(6)][0], 0.3)
                side = np.array([-n[1], n[0], 0])
                size = rng.uniform(0.1, 0.45, 2) * s
                p = -n * (distance - 0.01 * s) + side * rng.uniform(-1, 1) * s + np.array([0, 0, rng.uniform(0.3, 1.3) * s])
                g = w.add_geom(name=f"wall{i}_{j}", type=mujoco.mjtGeom.mjGEOM_BOX, size=[size[0], size[1], 0.006 * s], material=name, pos=list(p), contype=0, conaffinity=0)
                g.quat = facing_quat(n)
        if not self.room:
            self._material("table", (1, 1, 1), self.background_pool[4][0], rng.uniform(0, 0.6), repeat=[rng.uniform(0.5, 2.5)] * 2, uniform=True)
            self._material("legs", tint(rng, ROLE_TINTS["wood"][0]), None, 0.2)
            half, t = rng.uniform(0.45, 0.85, 2), rng.uniform(0.01, 0.03)
            if rng.random() < 0.75:
                w.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[half[0], half[1], t], pos=[0, 0, self.table_z - t], material="table", friction=[1, 0.02, 0.02])
            else:
                w.add_geom(type=mujoco.mjtGeom.mjGEOM_CYLINDER, size=[half[0], t, 0], pos=[0, 0, self.table_z - t], material="table", friction=[1, 0.02, 0.02])
                half[:] = half[0] * 0.6
            for sx in (-1, 1):
                for sy in (-1, 1):
                    hz = (self.table_z - 2 * t) / 2
                    w.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.025, 0.025, hz], pos=[sx * (half[0] - 0.04), sy * (half[1] - 0.04), hz], material="legs", contype=0, conaffinity=0)

    def _choose_items(self, fixed: dict) -> None:
        rng = self.rng
        wanted = fixed.get("categories")
        if wanted is None:
            count = int(rng.integers(7, 19))
            weight = np.array([(2.0 if self.room and c in FURNITURE else 1.0) * (0.5 if not self.room and c in ("sofa", "chair") else 1.0) for c in CATEGORIES])
            # Few kinds at a time: several mugs side by side teach what tells them apart from what does not.
            kinds = rng.choice(len(CATEGORIES), int(rng.integers(5, 13)), replace=False, p=weight / weight.sum())
            wanted = [int(k) for k in rng.choice(kinds, count)]
        for c in wanted:
            built = BUILDERS[CATEGORIES[c]](rng)
            if CATEGORIES[c] != "ball":
                built = stretched(built, rng.uniform(0.87, 1.15), rng.uniform(0.87, 1.15))
            rel = RELATIVE_SIZE[CATEGORIES[c]] ** (1.4 if self.room else 1.0)
            self.items.append(Item(c, built, self.unit * rel * rng.uniform(0.75, 1.35)))
        for _ in range(int(fixed.get("distractors", rng.integers(0, 5)))):
            self.items.append(Item(-1, distractor(rng), self.unit * rng.uniform(0.4, 1.1)))
        order = rng.permutation(len(self.items))
        self.items = [self.items[i] for i in order]

    def _place_items(self) -> None:
        rng, s = self.rng, self.scale
        placed: list[tuple[float, float, float]] = []
        crowd = rng.uniform(0.75, 1.15)
        for k, item in enumerate(self.items):
            v = np.concatenate([m.v for m in item.built.parts.values()])
            lo, hi = v.min(0), v.max(0)
            zoom = item.size / float(np.max(hi - lo))
            half = (hi - lo) * zoom / 2
            lying = item.built.can_lie and rng.random() < 0.15
            radius = float(np.hypot(half[0], half[1])) * 0.8 if not lying else float(max(half))
            reach = 0.12 * s
            xy = np.zeros(2)
            for attempt in range(60):
                xy = rng.uniform(-1, 1, 2) * reach
                gap = [np.hypot(xy[0] - p[0], xy[1] - p[1]) - crowd * (radius + p[2]) for p in placed]
                if all(g > 0 for g in gap):
                    break
                reach = min(reach * 1.06, 0.62 * s if not self.room else 1.2 * s)
            placed.append((xy[0], xy[1], radius))
            name = CATEGORIES[item.category] if item.category >= 0 else ""
            yaw = rng.uniform(0, 360)
            if name in FACING and rng.random() < 0.65:
                yaw = self.sector + 90 + rng.normal(0, 40)
            self._add_body(k, item, zoom, lo, hi, xy, yaw, lying)

    def _add_body(self, k: int, item: Item, zoom: float, lo, hi, xy, yaw: float, lying: bool) -> None:
        rng = self.rng
        b = self.spec.worldbody.add_body(name=f"o{k}")
        half, centre = (hi - lo) * zoom / 2, (hi + lo) * zoom / 2
        lift = (max(half[0], half[1]) if lying else 0.0) + 0.004 * self.scale + (0.03 * self.scale * rng.random())
        b.pos = [xy[0], xy[1], self.table_z + lift]
        c, s_ = np.cos(np.radians(yaw) / 2), np.sin(np.radians(yaw) / 2)
        q = np.array([c, 0, 0, s_])
        if lying:
            tipped = np.zeros(4)
            mujoco.mju_mulQuat(tipped, q, np.array([np.sqrt(0.5), 0, np.sqrt(0.5), 0]))
            q = tipped
        b.quat = list(q)
        b.add_freejoint()
        solids = item.built.solids
        if not solids:
            if item.built.round_base:
                solids = [("cylinder", (max(half[:2]) / zoom, half[2] / zoom), (centre / zoom))]
            else:
                solids = [("box", tuple(half / zoom), tuple(centre / zoom))]
        kinds = {"box": mujoco.mjtGeom.mjGEOM_BOX, "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER, "sphere": mujoco.mjtGeom.mjGEOM_SPHERE}
        for kind, size, pos in solids:
            padded = (list(np.asarray(size) * zoom) + [0, 0])[:3]
            b.add_geom(type=kinds[kind], size=padded, pos=list(np.asarray(pos) * zoom), group=HIDDEN_GROUP, density=300, friction=[1, 0.02, 0.02], condim=6)
        self._choose_surface(k, item)
        for role, mesh in item.built.parts.items():
            m = self.spec.add_mesh(name=f"m{k}_{role}")
            m.uservert, m.userface, m.usertexcoord = (mesh.v * zoom).ravel().tolist(), mesh.f.ravel().tolist(), mesh.uv.ravel().tolist()
            m.inertia = mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL
            if role != "main":
                ranges, shine = ROLE_TINTS[role]
                texture = self.screen_pool[rng.integers(2)][0] if role == "screen" else None
                alpha = rng.uniform(0.2, 0.45) if role == "glass" else 1.0
                self._material(f"x{k}_{role}", tint(rng, ranges), texture, shine, alpha)
                if role in ("screen", "glow"):
                    self.spec.material(f"x{k}_{role}").emission = rng.uniform(0.2, 0.8)
            material = f"x{k}_{role}"
            b.add_geom(type=mujoco.mjtGeom.mjGEOM_MESH, meshname=m.name, material=material, contype=0, conaffinity=0, mass=0, group=0)
        item.points = surface_points(rng, list(item.built.parts.values()), 220) * zoom

    def _choose_surface(self, k: int, item: Item) -> None:
        rng = self.rng
        rgb, texture, repeat = (1.0, 1.0, 1.0), None, 1.0
        draw = rng.random()
        if item.category >= 0 and draw < 0.13 or item.category < 0 and draw < 0.4:
            texture, index = self.pattern_pool[rng.integers(len(self.pattern_pool))]
            item.pattern, item.free_color = self.bank.patterns[index][0], False
            rgb, repeat = tuple(rng.uniform(0.7, 1.0, 3)), rng.uniform(0.6, 2.0)
        else:
            if draw < 0.45:
                texture, item.pattern, repeat = self.subtle_pool[rng.integers(len(self.subtle_pool))][0], 1, rng.uniform(0.5, 3.0)
            if item.category >= 0:
                item.color, rgb = draw_color(rng, item.category, self.mode)
            else:
                rgb = tint(rng, ROLE_TINTS["accent"][0])
        if rng.random() < item.built.see_through:
            item.alpha = rng.uniform(0.45, 0.8)
        self._material(f"x{k}_main", rgb, texture, rng.random() ** 2, item.alpha, repeat=[repeat, repeat])

    def _lights_and_camera(self) -> None:
        w, s = self.spec.worldbody, self.scale
        for i in range(MAX_LIGHTS):
            light = w.add_light(name=f"l{i}", pos=[0, 0, 3 * s], dir=[0, 0, -1], castshadow=i < 2)
            light.cutoff, light.exponent, light.attenuation = 75, 1, [1, 0, 0]
        w.add_camera(name="eye", pos=[0, -1, 1])
        self.spec.option.gravity = [0, 0, -9.81 * s]
        self.spec.option.timestep = 0.004
        self.spec.visual.global_.offwidth, self.spec.visual.global_.offheight = self.width, self.height
        self.spec.visual.quality.shadowsize = 2048
        self.spec.visual.quality.offsamples = 4
        self.spec.visual.map.znear, self.spec.visual.map.zfar = 0.01, 12
        self.spec.stat.extent, self.spec.stat.center = 2.0 * s, [0, 0, self.table_z]

    def _resolve_ids(self) -> None:
        m = self.model
        self.geom_item = np.full(m.ngeom, -1)
        for k, item in enumerate(self.items):
            item.body = m.body(f"o{k}").id
            item.main_material = m.material(f"x{k}_main").id
            self.geom_item[m.geom_bodyid == item.body] = k
        names = [m.geom(g).name for g in range(m.ngeom)]
        self._wall_geoms = [([g for g, n in enumerate(names) if n.split("_")[0] == wall], normal, d) for wall, normal, d in self.walls]
        self._texture_ids = {name: m.texture(name).id for name, _ in self.background_pool}

    def settle(self, steps: int = 160) -> None:
        m, d = self.model, self.data
        for i in range(4):
            mujoco.mj_step(m, d, steps // 4)
            d.qvel[:] *= 0.3
        mujoco.mj_forward(m, d)

    # --- variation between views --------------------------------------------------------------------------------

    def restyle(self, rng: Rng, colors: bool = True) -> None:
        """New lights, background textures and object colours; cheap, no recompilation."""
        m, s = self.model, self.scale
        if colors:
            for k, item in enumerate(self.items):
                if item.free_color and item.category >= 0:
                    item.color, rgb = draw_color(rng, item.category, self.mode)
                    m.mat_rgba[item.main_material] = [*rgb, item.alpha]
            names = [n for n in ("floor", "wall0", "wall1", "wall2", "table") if mujoco.mj_name2id(m, mujoco.mjtObj.mjOBJ_MATERIAL, n) >= 0]
            for name in names:
                i = m.material(name).id
                m.mat_texid[i, mujoco.mjtTextureRole.mjTEXROLE_RGB] = self._texture_ids[self.background_pool[rng.integers(6)][0]]
                m.mat_texrepeat[i] = rng.uniform(0.3, 2.2) / s
                m.mat_rgba[i, :3] = rng.uniform(0.75, 1.0, 3)
        self.relight(rng)

    def relight(self, rng: Rng) -> None:
        m, d, s = self.model, self.data, self.scale
        count = int(rng.integers(1, MAX_LIGHTS + 1))
        warmth = rng.normal(0, 0.09)
        m.vis.headlight.ambient[:] = rng.uniform(0.15, 0.5)
        m.vis.headlight.diffuse[:] = rng.uniform(0.0, 0.25)
        m.vis.headlight.specular[:] = 0.05
        share = rng.uniform(0.3, 1.0, count)
        share *= rng.uniform(0.5, 1.0) / share.sum()
        for i in range(MAX_LIGHTS):
            m.light_active[i] = i < count
            m.light_castshadow[i] = i == 0 or (i == 1 and rng.random() < 0.3)
            if i >= count:
                continue
            a, up = rng.uniform(0, 2 * np.pi), np.radians(rng.uniform(30, 88))
            towards = np.array([np.cos(a) * np.cos(up), np.sin(a) * np.cos(up), np.sin(up)])
            target = np.array([*rng.uniform(-0.2, 0.2, 2) * s, self.table_z])
            m.light_pos[i] = target + towards * rng.uniform(1.6, 3.0) * s
            m.light_dir[i] = -towards
            tone = np.array([1 + warmth, 1.0, 1 - warmth]) * rng.uniform(0.95, 1.05, 3)
            m.light_diffuse[i] = np.clip(share[i] * tone, 0, 1)
            m.light_specular[i] = rng.uniform(0.1, 0.5)
        d.light_xpos[:], d.light_xdir[:] = m.light_pos, m.light_dir

    # --- cameras ------------------------------------------------------------------------------------------------

    def look(self, eye: np.ndarray, target: np.ndarray, roll_deg: float, fovy_deg: float) -> None:
        """Puts the camera at `eye`, looking at `target`; positions in world metres."""
        back = eye - target
        back = back / np.linalg.norm(back)
        right = np.cross([0, 0, 1.0], back)
        right /= max(np.linalg.norm(right), 1e-6)
        up = np.cross(back, right)
        c, s = np.cos(np.radians(roll_deg)), np.sin(np.radians(roll_deg))
        self.data.cam_xpos[0] = eye
        self.data.cam_xmat[0] = np.stack([c * right + s * up, c * up - s * right, back], 1).ravel()
        self.model.cam_fovy[0] = fovy_deg
        # A wall seen from behind is translucent in the picture but solid in the label image: leave it out.
        for geoms, normal, distance in self._wall_geoms:
            self.model.geom_group[geoms] = 0 if normal @ eye + distance > 0.03 * self.scale else HIDDEN_GROUP

    def focal(self) -> float:
        """Focal length in pixels (square pixels)."""
        return self.height / 2 / np.tan(np.radians(self.model.cam_fovy[0]) / 2)

    def random_view(self, rng: Rng) -> None:
        """A hand-placed-looking view in which a typical object has a side of about 60 to 90 pixels."""
        centres = self.data.xpos[[i.body for i in self.items]]
        sizes = np.array([i.size for i in self.items])
        near = [k for k in range(len(self.items)) if np.hypot(*centres[k, :2]) < 0.8 * self.scale] or [0]
        focus = centres[rng.choice(near)]
        middle = np.mean(centres[near], axis=0)
        target = focus + rng.uniform(0.2, 0.9) * (middle - focus)
        target[2] += rng.uniform(0.1, 0.6) * self.unit
        fovy = rng.uniform(36, 68)
        pixels = float(np.clip(np.exp(rng.normal(np.log(92), 0.33)), 45, 240)) * self.height / 360
        distance = self.height / 2 / np.tan(np.radians(fovy) / 2) * float(np.median(sizes)) / pixels
        distance = max(distance, 1.6 * self.unit)
        az, el = np.radians(self.sector + rng.uniform(-65, 65)), np.radians(rng.uniform(12, 68))
        eye = target + distance * np.array([np.cos(az) * np.cos(el), np.sin(az) * np.cos(el), np.sin(el)])
        eye[2] = max(eye[2], self.table_z + 0.25 * self.unit)
        self.look(eye, target, rng.normal(0, 5), fovy)

    # --- what is where ------------------------------------------------------------------------------------------

    def visible_fractions(self, instance: np.ndarray) -> np.ndarray:
        """Share of each item's surface samples that project onto its own pixels; f64[len(items)].

        Samples behind the item count as seen when its own front covers them, so this estimates visible over whole
        silhouette. Samples outside the picture count as hidden. `instance` is item index + 1, i32[H,W].
        """
        d = self.data
        rot, f = d.cam_xmat[0].reshape(3, 3), self.focal()
        h, w = instance.shape
        out = np.zeros(len(self.items))
        for k, item in enumerate(self.items):
            p = item.points @ d.xmat[item.body].reshape(3, 3).T + d.xpos[item.body]
            q = (p - d.cam_xpos[0]) @ rot
            depth = np.maximum(-q[:, 2], 1e-6)
            x = np.floor(w / 2 + f * q[:, 0] / depth).astype(int)
            y = np.floor(h / 2 - f * q[:, 1] / depth).astype(int)
            ok = (q[:, 2] < 0) & (x >= 0) & (x < w) & (y >= 0) & (y < h)
            out[k] = np.sum(instance[y[ok], x[ok]] == k + 1) / len(p)
        return out
