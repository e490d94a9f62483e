# SPDX-License-Identifier: Apache-2.0
# Finds Wasmer's C API below WASMER_ROOT (variable, else environment). Nowhere else: an engine is chosen, not met by chance.
# Defines Wasmer_FOUND, Wasmer_VERSION, Wasmer_ROOT_DIR, Wasmer_LIBRARY, Wasmer_STOCK_LIBRARY (the same engine without
# wasmer-plus, if there is one) and the targets
#   Wasmer::headers  the include folder only     Wasmer::Wasmer  headers and library     Wasmer::static  the archive, if there is one
set(Wasmer_ROOT_DIR "${WASMER_ROOT}")
if(NOT Wasmer_ROOT_DIR)
  set(Wasmer_ROOT_DIR "$ENV{WASMER_ROOT}")
endif()

unset(Wasmer_INCLUDE_DIR)
unset(Wasmer_LIBRARY)
unset(Wasmer_STOCK_LIBRARY)
unset(Wasmer_VERSION)
if(Wasmer_ROOT_DIR)
  get_filename_component(Wasmer_ROOT_DIR "${Wasmer_ROOT_DIR}" ABSOLUTE)
  if(NOT EXISTS "${Wasmer_ROOT_DIR}/include/wasmer.h")
    message(FATAL_ERROR "WASMER_ROOT is ${Wasmer_ROOT_DIR}, but include/wasmer.h is not in it. "
      "Give the folder of Wasmer's C API that has include/ and lib/, or leave it out to build without Wasmer.")
  endif()
  set(Wasmer_INCLUDE_DIR "${Wasmer_ROOT_DIR}/include")
  foreach(candidate lib/libwasmer.so lib64/libwasmer.so lib/libwasmer.dylib)
    if(NOT Wasmer_LIBRARY AND EXISTS "${Wasmer_ROOT_DIR}/${candidate}")
      set(Wasmer_LIBRARY "${Wasmer_ROOT_DIR}/${candidate}")
    endif()
  endforeach()
  if(EXISTS "${Wasmer_ROOT_DIR}/stock/lib/libwasmer.so")
    set(Wasmer_STOCK_LIBRARY "${Wasmer_ROOT_DIR}/stock/lib/libwasmer.so")
  endif()
  file(STRINGS "${Wasmer_INCLUDE_DIR}/wasmer.h" Wasmer_VERSION REGEX "^#define WASMER_VERSION \"")
  string(REGEX REPLACE ".*\"(.*)\".*" "\\1" Wasmer_VERSION "${Wasmer_VERSION}")
endif()

include(FindPackageHandleStandardArgs)
set(Wasmer_FIND_QUIETLY TRUE)
find_package_handle_standard_args(Wasmer
  REQUIRED_VARS Wasmer_LIBRARY Wasmer_INCLUDE_DIR VERSION_VAR Wasmer_VERSION)

if(Wasmer_FOUND AND NOT TARGET Wasmer::headers)
  add_library(Wasmer::headers INTERFACE IMPORTED)
  set_target_properties(Wasmer::headers PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${Wasmer_INCLUDE_DIR}")
  add_library(Wasmer::Wasmer SHARED IMPORTED)
  set_target_properties(Wasmer::Wasmer PROPERTIES
    IMPORTED_LOCATION "${Wasmer_LIBRARY}"
    INTERFACE_INCLUDE_DIRECTORIES "${Wasmer_INCLUDE_DIR}")
  if(EXISTS "${Wasmer_ROOT_DIR}/lib/libwasmer.a")
    add_library(Wasmer::static STATIC IMPORTED)
    set_target_properties(Wasmer::static PROPERTIES
      IMPORTED_LOCATION "${Wasmer_ROOT_DIR}/lib/libwasmer.a"
      INTERFACE_INCLUDE_DIRECTORIES "${Wasmer_INCLUDE_DIR}"
      # What Rust's archive needs besides.
      INTERFACE_LINK_LIBRARIES "gcc_s;m;pthread;dl;c")
  endif()
endif()
