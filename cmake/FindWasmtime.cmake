# SPDX-License-Identifier: Apache-2.0
# Finds Wasmtime's C API below WASMTIME_ROOT (variable, else environment). Nowhere else: an engine is chosen, not met by chance.
# Defines Wasmtime_FOUND, Wasmtime_VERSION, Wasmtime_ROOT_DIR, Wasmtime_LIBRARY and the targets
#   Wasmtime::headers  the include folder only     Wasmtime::Wasmtime  headers and library
set(Wasmtime_ROOT_DIR "${WASMTIME_ROOT}")
if(NOT Wasmtime_ROOT_DIR)
  set(Wasmtime_ROOT_DIR "$ENV{WASMTIME_ROOT}")
endif()

unset(Wasmtime_INCLUDE_DIR)
unset(Wasmtime_LIBRARY)
unset(Wasmtime_VERSION)
if(Wasmtime_ROOT_DIR)
  get_filename_component(Wasmtime_ROOT_DIR "${Wasmtime_ROOT_DIR}" ABSOLUTE)
  if(NOT EXISTS "${Wasmtime_ROOT_DIR}/include/wasmtime.h")
    message(FATAL_ERROR "WASMTIME_ROOT is ${Wasmtime_ROOT_DIR}, but include/wasmtime.h is not in it. "
      "Give the folder of Wasmtime's C API that has include/ and lib/, or leave it out to build without Wasmtime.")
  endif()
  set(Wasmtime_INCLUDE_DIR "${Wasmtime_ROOT_DIR}/include")
  foreach(candidate lib/libwasmtime.so lib64/libwasmtime.so lib/libwasmtime.dylib)
    if(NOT Wasmtime_LIBRARY AND EXISTS "${Wasmtime_ROOT_DIR}/${candidate}")
      set(Wasmtime_LIBRARY "${Wasmtime_ROOT_DIR}/${candidate}")
    endif()
  endforeach()
  file(STRINGS "${Wasmtime_INCLUDE_DIR}/wasmtime.h" Wasmtime_VERSION REGEX "^#define WASMTIME_VERSION \"")
  string(REGEX REPLACE ".*\"(.*)\".*" "\\1" Wasmtime_VERSION "${Wasmtime_VERSION}")
endif()

include(FindPackageHandleStandardArgs)
set(Wasmtime_FIND_QUIETLY TRUE)
find_package_handle_standard_args(Wasmtime
  REQUIRED_VARS Wasmtime_LIBRARY Wasmtime_INCLUDE_DIR VERSION_VAR Wasmtime_VERSION)

if(Wasmtime_FOUND AND NOT TARGET Wasmtime::headers)
  add_library(Wasmtime::headers INTERFACE IMPORTED)
  set_target_properties(Wasmtime::headers PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${Wasmtime_INCLUDE_DIR}")
  add_library(Wasmtime::Wasmtime SHARED IMPORTED)
  set_target_properties(Wasmtime::Wasmtime PROPERTIES
    IMPORTED_LOCATION "${Wasmtime_LIBRARY}"
    # Builds of it come without a SONAME; by path, the path would become what the loader looks for.
    IMPORTED_NO_SONAME TRUE
    INTERFACE_INCLUDE_DIRECTORIES "${Wasmtime_INCLUDE_DIR}")
endif()
