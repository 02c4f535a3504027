"""Offscreen rendering of a `World`: colour, instances and depth, with one GL context per process."""

from __future__ import annotations

import mujoco
import numpy as np

from .world import HIDDEN_GROUP, World


class Renderer:
    """Draws worlds of one picture size. Not thread-safe; use one per process."""

    def __init__(self, width: int, height: int):
        self.width, self.height = width, height
        self._gl = mujoco.GLContext(width, height)
        self._gl.make_current()
        self._option = mujoco.MjvOption()
        self._option.geomgroup[HIDDEN_GROUP] = 0
        self._camera = mujoco.MjvCamera()
        self._camera.type, self._camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._context: mujoco.MjrContext | None = None
        self._world: World | None = None

    def attach(self, world: World) -> None:
        """Uploads a world's meshes and textures; the one before is dropped."""
        if self._context is not None:
            self._context.free()
        self._world = world
        self._context = mujoco.MjrContext(world.model, mujoco.mjtFontScale.mjFONTSCALE_50)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._scene = mujoco.MjvScene(world.model, maxgeom=world.model.ngeom + 50)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0

    def draw(self, colour: bool = True, instances: bool = True, depth: bool = False) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        """Returns rgb u8[H,W,3], instance i32[H,W] (item index + 1, 0 = none) and depth f32[H,W] in metres (0 = none), or None for each not wanted."""
        world, scene = self._world, self._scene
        assert world is not None and self._context is not None, "attach a world first"
        mujoco.mjv_updateScene(world.model, world.data, self._option, None, self._camera, mujoco.mjtCatBit.mjCAT_ALL, scene)
        rgb = self._colour() if colour else None
        instance, z = self._labels(depth) if instances or depth else (None, None)
        return rgb, instance if instances else None, z

    def _colour(self) -> np.ndarray:
        flags = self._scene.flags
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = 0
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 1
        rgb = np.empty((self.height, self.width, 3), np.uint8)
        mujoco.mjr_render(self._rect, self._scene, self._context)
        mujoco.mjr_readPixels(rgb, None, self._rect, self._context)
        return np.flipud(rgb)

    def _labels(self, depth: bool) -> tuple[np.ndarray, np.ndarray | None]:
        world, scene = self._world, self._scene
        scene.flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = scene.flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = 1
        scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        ids = np.empty((self.height, self.width, 3), np.uint8)
        z = np.empty((self.height, self.width), np.float32) if depth else None
        mujoco.mjr_render(self._rect, scene, self._context)
        mujoco.mjr_readPixels(ids, z, self._rect, self._context)
        lookup = np.zeros(scene.ngeom + 1, np.int32)
        for i in range(scene.ngeom):
            g = scene.geoms[i]
            if g.segid >= 0 and g.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                lookup[g.segid + 1] = world.geom_item[g.objid] + 1
        index = ids[..., 0].astype(np.int32) | (ids[..., 1].astype(np.int32) << 8) | (ids[..., 2].astype(np.int32) << 16)
        instance = lookup[np.where(index <= scene.ngeom, index, 0)]
        return np.flipud(instance), self._metres(np.flipud(z)) if z is not None else None

    def _metres(self, z: np.ndarray) -> np.ndarray:
        """Depth buffer (reversed or not, as this MuJoCo has it) to distance along the optical axis; 0 where nothing was drawn."""
        m = self._world.model
        near, far = m.vis.map.znear * m.stat.extent, m.vis.map.zfar * m.stat.extent
        metres = near / (1 - z.astype(np.float64) * (1 - near / far))
        return np.where(metres < far * (1 - 1e-6), metres, 0).astype(np.float32)  # an empty pixel keeps the far plane

    def close(self) -> None:
        if self._context is not None:
            self._context.free()
            self._context = None
        self._gl.free()
