/* A stand-in for the NVIDIA driver library, to try GPU set-ups on machines without one.

   The tests build it for themselves. To try the real mxnet-cu112 by hand (4 GB installed):

     make .venv-cu112/installed-cu112 VENV=.venv-cu112 BUILD=cu112
     gcc -shared -fPIC -o /tmp/libcuda.so.1 tests/fake_cuda.c
     LD_LIBRARY_PATH=/tmp .venv-cu112/bin/python tools/env.py

   FAKE_GPUS lists the compute capabilities of its GPUs, as in FAKE_GPUS=75,90; none by default.
   What mxnet-cu112 links to besides exists and fails, which is enough to compute on the CPU. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, NO_DEVICE = 100 };

static int capability(int index) {
  const char *text = getenv("FAKE_GPUS");
  for (; text && index > 0; index--) text = (text = strchr(text, ',')) ? text + 1 : NULL;
  return text ? atoi(text) : 0;
}

int cuInit(unsigned flags) { return capability(0) ? SUCCESS : NO_DEVICE; }
int cuDeviceGetCount(int *count) {
  for (*count = 0; capability(*count); ++*count) {}
  return SUCCESS;
}
int cuDeviceGet(int *device, int index) { return *device = index, SUCCESS; }
int cuDeviceGetName(char *name, int size, int device) {
  return snprintf(name, size, "Fake %d", device), SUCCESS;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  int both = capability(device);
  return *value = attribute == 75 ? both / 10 : both % 10, SUCCESS;
}

#define FAILS(name) int name(void) { return NO_DEVICE; }
FAILS(cuDevicePrimaryCtxRetain)
FAILS(cuGetErrorString)
FAILS(cuGraphKernelNodeGetParams)
FAILS(cuGraphNodeGetType)
FAILS(cuLaunchKernel)
FAILS(cuModuleGetFunction)
FAILS(cuModuleLoadData)
FAILS(cuModuleLoadDataEx)
FAILS(cuModuleUnload)
